"""What may be said by a schema that the automaton alone enforces.

Narrower than the schema is allowed where it harms nobody: members come in the order of
`properties`, text has one spelling (`", "` and `": "`, no other blanks), numbers have at most 19
digits, values without a type nest to a depth of `FREE_DEPTH`. Wider than the schema never is.
"""

from typing import Any

from falsework.grammars import json_values
from falsework.grammars.expressions import Expression
from falsework.grammars.schema_documents import Schema
from falsework.grammars.schema_errors import UnsupportedSchema
from falsework.grammars.schema_plan import SchemaPlan, plan

__all__ = ["Schema", "arguments_grammar", "value_grammar"]


def arguments_grammar(
    parameters: Any, notation: json_values.Notation = json_values.JSON
) -> Expression:
    """Say the arguments of a tool; parameters that name no properties mean no arguments."""
    return _enforced(plan(parameters, notation, arguments=True))


def value_grammar(schema: Any) -> Expression:
    """Say a JSON value that satisfies the schema."""
    return _enforced(plan(schema))


def _enforced(planned: SchemaPlan) -> Expression:
    """Return the expression; refuse what decoding alone doesn't enforce."""
    if planned.how == "automaton" and planned.expression is not None:
        return planned.expression
    if planned.how == "llguidance":
        msg = "it is recursive, which can't be enforced yet"
        raise UnsupportedSchema(msg, "", "$ref")
    keyword, pointer = planned.checks[0]
    msg = f"'{keyword}' can't be enforced"
    raise UnsupportedSchema(msg, pointer, keyword)
