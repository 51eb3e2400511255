"""GLM 4.5 and later, Laguna: a pair of tags per argument."""

from falsework.grammars.call_formats import ElementNotation, ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat template of zai-org/GLM-4.5.
GLM = Dialect(
    "glm",
    ToolCallFormat(
        before_name="<tool_call>",
        after_name="\n",
        after_arguments="</tool_call>",
        trigger="<tool_call>",
        leading="\n",
        elements=ElementNotation("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
    ),
    template_says=("<tool_call>", "</arg_key>\n<arg_value>"),
    reasoning=ReasoningTags("<think>", "</think>", "\n", ("",), leading="\n"),
)

# The chat template of zai-org/GLM-4.7-Flash: no newlines.
GLM47 = Dialect(
    "glm47",
    ToolCallFormat(
        before_name="<tool_call>",
        after_name="",
        after_arguments="</tool_call>",
        separator="",
        trigger="<tool_call>",
        elements=ElementNotation("<arg_key>", "</arg_key><arg_value>", "</arg_value>"),
    ),
    template_says=("<tool_call>", "</arg_key><arg_value>"),
    reasoning=ReasoningTags("<think>", "</think>", "", ("\n",)),
)
