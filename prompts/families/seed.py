"""Seed-OSS: Qwen's elements inside tags of its own."""

from falsework.grammars.call_formats import ElementNotation, ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat template of ByteDance-Seed/Seed-OSS-36B-Instruct.
SEED_OSS = Dialect(
    "seed_oss",
    ToolCallFormat(
        before_name="<seed:tool_call>\n<function=",
        after_name=">\n",
        after_arguments="</function>\n</seed:tool_call>",
        trigger="<seed:tool_call>",
        leading="\n",
        elements=ElementNotation("<parameter=", ">", "</parameter>\n", python_words=True),
    ),
    template_says=("<seed:tool_call>", "<parameter="),
    reasoning=ReasoningTags("<seed:think>", "</seed:think>", "\n", ("",)),
)
