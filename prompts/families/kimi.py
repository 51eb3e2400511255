"""Kimi K2: calls numbered in their message, between markers."""

from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat template of moonshotai/Kimi-K2-Instruct.
KIMI_K2 = Dialect(
    "kimi_k2",
    ToolCallFormat(
        opening="<|tool_calls_section_begin|>",
        before_name="<|tool_call_begin|>functions.",
        after_name=":{n}<|tool_call_argument_begin|>",
        after_arguments="<|tool_call_end|>",
        separator="",
        closing="<|tool_calls_section_end|>",
        trigger="<|tool_calls_section_begin|>",
    ),
    needs=("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
    template_says=("<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>"),
    reasoning=ReasoningTags("<think>", "</think>", "", ("\n", "\n\n")),
    call_id="functions.{name}:{n}",
)
