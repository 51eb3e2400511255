"""Gemma 4 and FunctionGemma: bare keys, strings between marks."""

from falsework.grammars.call_formats import BareKeyNotation, ReasoningTags, ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat template of google/gemma-4-31B-it.
GEMMA4 = Dialect(
    "gemma4",
    ToolCallFormat(
        before_name="<|tool_call>call:",
        after_name="{",
        after_arguments="}<tool_call|>",
        separator="",
        trigger="<|tool_call>",
        bare_keys=BareKeyNotation('<|"|>'),
    ),
    needs=("<|tool_call>", "<tool_call|>", '<|"|>'),
    template_says=("<|tool_call>call:", '<|"|>'),
    reasoning=ReasoningTags("<|channel>thought\n", "<channel|>", "", ("\n",)),
)

# The model card of google/functiongemma-270m-it.
FUNCTIONGEMMA = Dialect(
    "functiongemma",
    ToolCallFormat(
        before_name="<start_function_call>call:",
        after_name="{",
        after_arguments="}<end_function_call>",
        separator="",
        trigger="<start_function_call>",
        bare_keys=BareKeyNotation("<escape>"),
    ),
    needs=("<start_function_call>", "<end_function_call>", "<escape>"),
    template_says=("<start_function_call>", "<escape>"),
)
