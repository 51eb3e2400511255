"""Whether a JSON value is one of a term's, and which values a node lists."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from falsework.grammars.char_dfa import ANY_TEXT, CharDFA
from falsework.grammars.numbers import Numbers, exact, spelled
from falsework.grammars.schema_terms import (
    ANYTHING,
    Arrays,
    Booleans,
    Check,
    Constants,
    Node,
    Null,
    Objects,
    json_text,
)
from falsework.grammars.strings import Strings

if TYPE_CHECKING:
    from falsework.grammars.schema_algebra import Algebra


def is_value_of(algebra: "Algebra", term: Any, value: Any) -> bool:  # noqa: PLR0911 - one for each type
    """Tell whether a JSON value is one of a term's."""
    if isinstance(term, Null):
        return value is None
    if isinstance(term, Booleans):
        return isinstance(value, bool) and value in term.values
    if isinstance(term, Numbers):
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and exact(value) in term
        )
    if isinstance(term, Strings):
        return isinstance(value, str) and bool(
            (only := Strings(values=frozenset({value})).intersection(term))
            and only.settled(algebra.budget)
        )
    if isinstance(term, Constants):
        return json_text(value) in term.texts
    if isinstance(term, Arrays):
        return isinstance(value, list | tuple) and _is_array(algebra, term, value)
    return isinstance(value, Mapping) and _is_object(algebra, term, value)


def _is_array(algebra: "Algebra", arrays: Arrays, value: Any) -> bool:
    if len(value) < arrays.low or (arrays.high is not None and len(value) > arrays.high):
        return False
    if arrays.unique and len({json_text(one) for one in value}) < len(value):
        return False
    for contains in arrays.contains:
        found = sum(algebra.satisfies(contains.item, one) for one in value)
        if found < contains.low:
            return False
    return all(algebra.satisfies(arrays.item(n), one) for n, one in enumerate(value))


def _is_object(algebra: "Algebra", objects: Objects, value: Mapping[str, Any]) -> bool:
    if len(value) < objects.low or (objects.high is not None and len(value) > objects.high):
        return False
    return all(name in value for name in objects.required) and all(
        algebra.has_key(objects, name) and algebra.satisfies(algebra.member(objects, name), one)
        for name, one in value.items()
    )


def listed_values(algebra: "Algebra", node: Node, most: int) -> list[Any] | None:
    """Return the values of a node, where it has no more than `most`; None: it may have."""
    values: list[Any] = []
    if node == ANYTHING:
        return None
    for term in algebra.terms(node):
        value = term.value
        if isinstance(value, Constants):
            values += [algebra.constant(text) for text in sorted(value.texts)]
        elif isinstance(value, Booleans):
            values += sorted(value.values, reverse=True)
        elif isinstance(value, Null):
            values.append(None)
        elif isinstance(value, Strings | Numbers) and value.values is not None:
            settled = value.settled(algebra.budget) if isinstance(value, Strings) else value
            found: Any = (settled and settled.values) or ()
            values += [
                one if isinstance(one, str) else json.loads(spelled(one)) for one in sorted(found)
            ]
        else:
            return None
        if term.checks or len(values) > most:
            return None
    return values


def names_dfa(algebra: "Algebra", keys: Node) -> tuple[CharDFA | None, list[Check]]:
    """Return the automaton of the names that members may have (None: of none), and checks."""
    if keys == ANYTHING:
        return ANY_TEXT, []
    found: CharDFA | None = None
    checks: list[Check] = []
    for term in algebra.terms(keys):
        if isinstance(term.value, Strings):
            checks += sorted(term.checks)
            made = term.value.dfa(algebra.budget)
            found = made if found is None else found.union(made, algebra.budget)
    return (None if found is None or found.empty else found), checks
