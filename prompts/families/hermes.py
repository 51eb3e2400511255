"""Hermes 2 Pro and 3, Qwen 2.5, Qwen 3, QwQ, Granite 4, and models without calls of their own.

The chat template of Qwen/Qwen2.5-7B-Instruct: JSON with name and arguments between two tags.
"""

from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# What small models write instead of their family's marks, seen with Qwen2.5-Coder-0.5B-Instruct: a
# fenced block of JSON, or JSON alone.
_FENCE = ToolCallFormat(
    opening="```json\n",
    before_name='{"name": "',
    after_name='", "arguments": ',
    after_arguments="}",
    closing="\n```",
)
_BARE = ToolCallFormat(before_name='{"name": "', after_name='", "arguments": ', after_arguments="}")

_TOOL_CALL = ToolCallFormat(
    before_name='<tool_call>\n{"name": "',
    after_name='", "arguments": ',
    after_arguments="}\n</tool_call>",
    trigger="<tool_call>",
    barred="{[`<",
    habits=(_FENCE, _BARE),
)

# The model card of NousResearch/Hermes-2-Pro-Llama-3-8B, "Prompt Format for JSON Mode".
_JSON_MODE = (
    "You are a helpful assistant that answers in JSON. Here's the json schema you must adhere to:\n"
    "<schema>\n{schema}\n</schema>"
)

HERMES = Dialect(
    "hermes",
    _TOOL_CALL,
    answer_section=_JSON_MODE,
    template_says=("<tool_call>", '"arguments"', "</tool_call>"),
    reasoning=ReasoningTags(other_gaps=("\n", "")),
)

SCAFFOLD = Dialect("scaffold", _TOOL_CALL, reasoning=ReasoningTags(other_gaps=("\n", "")))
