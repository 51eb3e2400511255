"""The normal form of a schema: alternatives, each the values of one JSON type.

A schema is a union of `Term`s. What an object's members or an array's items may be stays a `Node`,
the schemas that hold there together, so that references may lead back.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from falsework.grammars.numbers import Numbers
from falsework.grammars.schema_documents import Subschema
from falsework.grammars.strings import Strings

Check = tuple[str, str]
"""A keyword that decoding doesn't enforce, and the JSON pointer to it."""

Node = tuple[tuple[Subschema, bool], ...]
"""Schemas that hold (True) or don't (False), all together; in the order of the document."""

ANYTHING: Node = ()
NO_CHECKS: frozenset[Check] = frozenset()


def json_text(value: Any) -> str:
    """Return one text for all JSON values that are equal (1 is 1.0, members in any order)."""
    return json.dumps(_settled(value), sort_keys=True)


def _settled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _settled(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_settled(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def together(*nodes: Node) -> Node:
    """Return the node where all of these hold."""
    if sum(map(bool, nodes)) <= 1:
        return next((node for node in nodes if node), ANYTHING)
    return tuple(sorted({one for node in nodes for one in node}, key=_order))


def _order(one: tuple[Subschema, bool]) -> tuple[int, bool]:
    return one[0].serial, not one[1]


@dataclass(frozen=True)
class Null:
    """The value null."""


@dataclass(frozen=True)
class Booleans:
    """True, false or both."""

    values: frozenset[bool] = frozenset({True, False})


@dataclass(frozen=True)
class Constants:
    """Listed arrays or objects as `json_text` has them (`typename`: "array" or "object")."""

    typename: str
    texts: frozenset[str]


@dataclass(frozen=True)
class Contains:
    """At least `low` and at most `high` items are `item` (`other`: those that aren't)."""

    item: Node
    other: Node
    low: int = 1
    high: int | None = None
    check: Check = ("contains", "")


@dataclass(frozen=True)
class Arrays:
    """Arrays: every part of `items` is a prefix and what holds for the items behind it."""

    items: tuple[tuple[tuple[Node, ...], Node], ...] = ()
    low: int = 0
    high: int | None = None
    contains: tuple[Contains, ...] = ()
    unique: frozenset[Check] = NO_CHECKS
    """The places that ask for unique items."""

    def item(self, index: int) -> Node:
        """Return what holds for an item."""
        return together(
            *(prefix[index] if index < len(prefix) else rest for prefix, rest in self.items)
        )

    @property
    def prefix_length(self) -> int:
        """How many items have schemas of their own."""
        return max((len(prefix) for prefix, _ in self.items), default=0)


@dataclass(frozen=True, eq=False)
class Layer:
    """What one schema says of members: by name, by pattern, and of all others.

    `others`: whether it says anything of others, be it that they may be anything.
    """

    names: dict[str, Node] = field(default_factory=dict)
    patterns: tuple[tuple[str, Node], ...] = ()
    rest: Node = ANYTHING
    others: bool = False


@dataclass(frozen=True)
class Objects:
    """Objects: all layers hold. `keys` holds for every member's name, as a string."""

    layers: tuple[Layer, ...] = ()
    required: tuple[str, ...] = ()
    low: int = 0
    high: int | None = None
    keys: Node = ANYTHING
    low_check: Check = ("minProperties", "")
    high_check: Check = ("maxProperties", "")

    def other(self, matched: frozenset[str]) -> Node:
        """Return what holds for members that nobody named and whose names match some patterns."""
        return together(
            *(
                node
                for layer in self.layers
                for node in [n for p, n in layer.patterns if p in matched] or [layer.rest]
            )
        )


Value = Null | Booleans | Numbers | Strings | Arrays | Objects | Constants


@dataclass(frozen=True)
class Term:
    """Values of one type; `checks` are the keywords that were left out of it."""

    value: Value
    checks: frozenset[Check] = NO_CHECKS

    def checked(self, checks: Iterable[Check]) -> "Term":
        """Return the term with further checks."""
        added = frozenset(checks)
        return replace(self, checks=self.checks | added) if added else self


Terms = tuple[Term, ...]

EVERYTHING: Terms = tuple(
    Term(value) for value in (Objects(), Arrays(), Strings(), Numbers(), Booleans(), Null())
)
TYPE_OF: dict[type, str] = {
    Objects: "object",
    Arrays: "array",
    Strings: "string",
    Numbers: "number",
    Booleans: "boolean",
    Null: "null",
}


def type_of(value: Value) -> str:
    """Return the JSON type of a term's values."""
    return value.typename if isinstance(value, Constants) else TYPE_OF[type(value)]


def without(typename: str) -> Terms:
    """Return the values of all other types."""
    return tuple(term for term in EVERYTHING if type_of(term.value) != typename)


def of_type(typename: str) -> Terms:
    """Return all values of one type of JSON Schema."""
    if typename == "integer":
        return (Term(Numbers(kind="whole")),)
    return tuple(term for term in EVERYTHING if type_of(term.value) == typename)


def met_arrays(one: Arrays, other: Arrays) -> Arrays | None:
    """Return the arrays that are in both; None: there are none."""
    high = _least(one.high, other.high)
    low = max(one.low, other.low)
    if high is not None and low > high:
        return None
    return Arrays(
        _joined(one.items, other.items),
        low,
        high,
        _joined(one.contains, other.contains),
        one.unique | other.unique,
    )


def met_objects(one: Objects, other: Objects) -> Objects | None:
    """Return the objects that are in both; None: it is known that there are none."""
    high = _least(one.high, other.high)
    low = max(one.low, other.low)
    if high is not None and low > high:
        return None
    required = one.required + tuple(n for n in other.required if n not in one.required)
    return Objects(
        _joined(one.layers, other.layers),
        required,
        low,
        high,
        together(one.keys, other.keys),
        one.low_check if one.low >= other.low else other.low_check,
        one.high_check if high == one.high else other.high_check,
    )


def _joined(one: tuple, other: tuple) -> tuple:  # type: ignore[type-arg]
    """Return all parts, each once."""
    return one + tuple(part for part in other if part not in one)


def _least(one: int | None, other: int | None) -> int | None:
    return min((n for n in (one, other) if n is not None), default=None)
