"""The families: each is one definition, from which prompt, constraint, history and reader follow.

Every literal of a family stands here once, with its source.
"""

from dataclasses import dataclass, replace

from falsework.grammars import json_values
from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat


@dataclass(frozen=True)
class PastCalls:
    """How a chat template takes the calls of a message: as `tool_calls`, which it spells itself.

    `as_text`: their arguments are JSON text, otherwise objects; `empty_content` is the content
    beside them where the message has no text.
    """

    as_text: bool
    empty_content: str | None


@dataclass(frozen=True)
class Dialect:
    """How one model family speaks of tools.

    `needs` are markers that must be single tokens of the vocabulary; `template_says` are literals
    by which its chat template is known where a rendered call doesn't show the family;
    `one_call_a_message`: the family's history has no two calls in one message; `past_calls`: how
    the chat template takes past calls, None where they go to it as the text that `markup` writes;
    `think`: the family's think block, None where the model doesn't think; `chat_template` is a file
    of `prompts/templates` that stands for the model's own where that is missing or malformed;
    `opens_reasoning`: a reply begins inside the think block even where the template opens none.
    """

    name: str
    markup: ToolCallFormat
    needs: tuple[str, ...] = ()
    template_says: tuple[str, ...] = ()
    one_call_a_message: bool = False
    past_calls: PastCalls | None = None
    think: ReasoningTags | None = None
    chat_template: str = ""
    opens_reasoning: bool = False

    @property
    def template_writes_calls(self) -> bool:
        """Tell whether past calls go to the chat template as tool_calls."""
        return self.past_calls is not None

    @property
    def markers(self) -> tuple[str, ...]:
        """Return all literals, in which special tokens of the vocabulary may be spelled."""
        think = self.think
        return (
            *self.markup.literals,
            *((think.opening, think.closing, think.gap) if think else ()),
        )


# What small models write instead of their family's marks, seen with Qwen2.5-Coder-0.5B-Instruct: a
# fenced block of JSON, or JSON alone.
_FENCE = ToolCallFormat(
    opening="```json\n",
    before_name='{"name": "',
    after_name='", "arguments": ',
    after_arguments="}",
    separator="\n",
    closing="\n```",
)
_BARE = ToolCallFormat(
    before_name='{"name": "', after_name='", "arguments": ', after_arguments="}", separator="\n"
)

# The format that Hermes 2 Pro introduced and Qwen 2.5 and 3 were trained on; from the chat template
# of Qwen/Qwen2.5-7B-Instruct: <tool_call>\n{"name": …, "arguments": …}\n</tool_call>.
_TOOL_CALL = ToolCallFormat(
    before_name='<tool_call>\n{"name": "',
    after_name='", "arguments": ',
    after_arguments="}\n</tool_call>",
    separator="\n",
    trigger="<tool_call>",
    barred="{[`<",
    habits=(_FENCE, _BARE),
)

# The chat template of meta-llama/Llama-3.1-8B-Instruct: {"name": …, "parameters": …}, alone in a
# message; several calls in one reply are separated by "; ".
_LLAMA3 = ToolCallFormat(
    before_name='{"name": "',
    after_name='", "parameters": ',
    after_arguments="}",
    separator="; ",
    barred="{[`<",
)

# Llama 3.2's and 4's prompt format page: [name(a=1, b="x"), other()].
_PYTHONIC = ToolCallFormat(
    opening="[",
    before_name="",
    after_name="(",
    after_arguments=")",
    separator=", ",
    closing="]",
    barred="{[`<",
    notation=json_values.PYTHON,
)

# The chat template of deepseek-ai/DeepSeek-R1, assistant messages with tool_calls.
_DEEPSEEK_R1 = ToolCallFormat(
    opening="<｜tool▁calls▁begin｜>",
    before_name="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    after_name="\n```json\n",
    after_arguments="\n```<｜tool▁call▁end｜>",
    separator="\n",
    closing="<｜tool▁calls▁end｜>",
    trigger="<｜tool▁calls▁begin｜>",
    barred="{[`",
)

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("llama3", _LLAMA3, one_call_a_message=True),
        Dialect("llama_pythonic", _PYTHONIC),
        Dialect("hermes", _TOOL_CALL),
        Dialect(
            "deepseek_r1",
            _DEEPSEEK_R1,
            # Its template closes tool results only behind calls that it wrote itself.
            past_calls=PastCalls(as_text=True, empty_content=None),
            needs=("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"),
            think=ReasoningTags(),
            # https://huggingface.co/deepseek-ai/DeepSeek-R1: "enforcing the model to initiate its
            # response with <think>\n at the beginning of every output".
            opens_reasoning=True,
        ),
        # For chat templates that know no tools: our own section, calls as Hermes spells them.
        Dialect("scaffold", _TOOL_CALL),
    )
}


def with_reasoning(dialect: Dialect) -> Dialect:
    """Return the dialect for a model that thinks before it answers."""
    return dialect if dialect.think else replace(dialect, think=ReasoningTags())
