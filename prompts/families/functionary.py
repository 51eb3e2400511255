"""Functionary 3.1: a tag per call with JSON inside."""

from falsework.grammars.call_formats import ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat template of meetkai/functionary-medium-v3.1.
FUNCTIONARY = Dialect(
    "functionary_v31",
    ToolCallFormat(
        before_name="<function=",
        after_name=">",
        after_arguments="</function>",
        separator="",
        trigger="<function=",
    ),
)
