"""gpt-oss: messages on the channels analysis, commentary and final."""

from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# How openai/gpt-oss-120b's chat template writes past calls: the recipient before the channel.
_RECIPIENT_FIRST = ToolCallFormat(
    before_name=" to=functions.",
    after_name="<|channel|>commentary json<|message|>",
    after_arguments="",
    parallel=False,
)

# The guide of https://github.com/openai/harmony: a reply is up to one message on each channel, and
# `<|call|>` or `<|return|>`, which are end tokens, end it.
HARMONY = Dialect(
    "harmony",
    ToolCallFormat(
        before_name="<|channel|>commentary to=functions.",
        after_name=" <|constrain|>json<|message|>",
        after_arguments="",
        trigger="<|channel|>",
        answer_opening="<|channel|>final<|message|>",
        text_opening="<|channel|>commentary<|message|>",
        text_closing="<|end|><|start|>assistant",
        excluded=("<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|constrain|>"),
        parallel=False,
        habits=(_RECIPIENT_FIRST,),
    ),
    needs=("<|channel|>", "<|message|>", "<|constrain|>"),
    template_says=("<|channel|>commentary", "<|channel|>final<|message|>"),
    one_call_a_message=True,
    # The guide's section on structured output.
    answer_section="# Response Formats\n\n## answer\n\n{schema}",
    reasoning=ReasoningTags("<|channel|>analysis<|message|>", "<|end|>", "<|start|>assistant"),
)
