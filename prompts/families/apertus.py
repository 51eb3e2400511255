"""Apertus: a list of objects with the tool's name as their key."""

from falsework.grammars.call_formats import ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat template of swiss-ai/Apertus-8B-Instruct-2509.
APERTUS = Dialect(
    "apertus",
    ToolCallFormat(
        opening="<|tools_prefix|>[",
        before_name='{"',
        after_name='": ',
        after_arguments="}",
        separator=", ",
        closing="]<|tools_suffix|>",
        trigger="<|tools_prefix|>",
    ),
    needs=("<|tools_prefix|>", "<|tools_suffix|>"),
    template_says=("<|tools_prefix|>", "<|tools_suffix|>"),
)
