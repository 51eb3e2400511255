"""A schema without the keywords that a notation can't spell, which are left to a check."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from falsework.grammars.expressions import Expression
from falsework.grammars.schema_errors import UnsupportedSchema
from falsework.grammars.schema_terms import Check

MAX_KEYWORDS = 200
"""How many keywords are left out at most: each costs another try."""


def loosen(
    schema: Mapping[str, Any] | bool, build: Callable[[Mapping[str, Any] | bool], Expression]
) -> tuple[Expression, tuple[Check, ...]]:
    """Return the tightest expression that `build` can say of a schema, and what is left to check.

    Raise UnsupportedSchema where what `build` refuses can't be left out.
    """
    checks: list[Check] = []
    while True:
        try:
            return build(schema), tuple(checks)
        except UnsupportedSchema as error:
            if len(checks) == MAX_KEYWORDS or not isinstance(schema, Mapping):
                raise
            schema, check = _without(schema, error)
            checks.append(check)


def _without(schema: Mapping[str, Any], error: UnsupportedSchema) -> tuple[dict[str, Any], Check]:
    """Return a copy without the keyword at fault, or with only the type of the value at fault."""
    loosened = copy.deepcopy(dict(schema))
    steps = [
        step.replace("~1", "/").replace("~0", "~") for step in error.pointer.split("/")[1:] if step
    ]
    node: Any = loosened
    for number, step in enumerate(steps):
        below = node.get(step) if isinstance(node, dict) else None
        last = number == len(steps) - 1
        if last and step == error.keyword and isinstance(node, dict) and step in node:
            del node[step]
            return loosened, (step, error.pointer)
        if not isinstance(below, dict | list) or isinstance(below, list):
            break
        node = below
    if node is loosened or not isinstance(node, dict):
        raise error
    kept = {key: value for key, value in node.items() if key == "type"}
    if kept == node:
        raise error
    node.clear()
    node.update(kept)
    return loosened, (error.keyword or "$ref", error.pointer)
