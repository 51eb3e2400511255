"""Llama 3.1 to 4: JSON or a Python list of calls."""

from falsework.grammars import json_values
from falsework.grammars.call_formats import ToolCallFormat
from falsework.prompts.dialect import Dialect

# The chat template of meta-llama/Llama-3.1-8B-Instruct: {"name": …, "parameters": …}, alone in a
# message; several calls in one reply are separated by "; ".
LLAMA3 = Dialect(
    "llama3",
    ToolCallFormat(
        before_name='{"name": "',
        after_name='", "parameters": ',
        after_arguments="}",
        separator="; ",
        barred="{[`<",
    ),
    one_call_a_message=True,
)

# Llama 3.2's and 4's prompt format page: [name(a=1, b="x"), other()].
LLAMA_PYTHONIC = Dialect(
    "llama_pythonic",
    ToolCallFormat(
        opening="[",
        before_name="",
        after_name="(",
        after_arguments=")",
        separator=", ",
        closing="]",
        barred="{[`<",
        notation=json_values.PYTHON,
    ),
)
