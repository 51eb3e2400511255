"""Qwen3-Coder, Qwen 3.5 and later, Nemotron 3, Step 3.5: an XML element per argument."""

from falsework.grammars.call_formats import ElementNotation, ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat templates of Qwen/Qwen3-Coder-30B-A3B-Instruct and Qwen/Qwen3.5-4B. They write True and
# False for truth values (`args_value | string`).
QWEN_XML = Dialect(
    "qwen_xml",
    ToolCallFormat(
        before_name="<tool_call>\n<function=",
        after_name=">\n",
        after_arguments="</function>\n</tool_call>",
        other_separators=("",),
        trigger="<tool_call>",
        elements=ElementNotation("<parameter=", ">\n", "\n</parameter>\n", python_words=True),
    ),
    template_says=("<tool_call>", "<function=", "<parameter="),
    reasoning=ReasoningTags(other_gaps=("\n", "")),
)
