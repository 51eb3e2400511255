"""LFM2 and OLMo 3: calls as Python writes them, between marks."""

from falsework.grammars import json_values
from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# The model card of LiquidAI/LFM2-8B-A1B: <|tool_call_start|>[name(a="x")]<|tool_call_end|>.
LFM2 = Dialect(
    "lfm2",
    ToolCallFormat(
        opening="<|tool_call_start|>[",
        before_name="",
        after_name="(",
        after_arguments=")",
        separator=", ",
        closing="]<|tool_call_end|>",
        trigger="<|tool_call_start|>",
        notation=json_values.PYTHON,
    ),
    needs=("<|tool_call_start|>", "<|tool_call_end|>"),
    template_says=("<|tool_call_start|>", "<|tool_call_end|>"),
    reasoning=ReasoningTags("<think>", "</think>", "", ("\n", "\n\n")),
)

# The model card of allenai/Olmo-3-7B-Instruct: a call a line.
OLMO3 = Dialect(
    "olmo3",
    ToolCallFormat(
        opening="<function_calls>",
        before_name="",
        after_name="(",
        after_arguments=")",
        separator="\n",
        closing="</function_calls>",
        trigger="<function_calls>",
        notation=json_values.PYTHON,
    ),
    template_says=("<function_calls>", "</function_calls>"),
)
