"""Arguments as an object with bare keys, whose strings stand raw between marks (Gemma)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from falsework.grammars import json_schema
from falsework.grammars.call_formats import BareKeyNotation
from falsework.grammars.element_arguments import members_of, object_of, parts_of
from falsework.grammars.expressions import (
    NFA,
    Expression,
    choice,
    literal,
    regex,
    separated,
    sequence,
)
from falsework.grammars.free_text import raw_string
from falsework.grammars.schema_errors import SchemaPath, UnsupportedSchema
from falsework.grammars.schema_keywords import KEYWORDS

FREE_DEPTH = 3
"""How deep a value without a schema may nest."""

_DEFINITIONS = frozenset({"$defs", "definitions"})
_KEY = "[A-Za-z_][A-Za-z0-9_-]*"
_KEYWORDS = {
    "string": {"minLength", "maxLength", "enum"},
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}
_NEUTRAL = {"uniqueItems": False, "minProperties": 0, "minContains": 0}

Schema = Mapping[str, Any] | bool


def bare_key_grammar(parameters: Schema, notation: BareKeyNotation) -> Expression:
    """Say a tool's arguments without the braces round them; keys in alphabetical order.

    Raise UnsupportedSchema where JSON can't be enforced either, or this notation can't spell it.
    """
    root = parameters if isinstance(parameters, Mapping) else {}
    schema = object_of(root)
    return _Values(notation, root).members({"properties": {}, **schema}, SchemaPath())


@dataclass(frozen=True)
class _Values:
    notation: BareKeyNotation
    root: Mapping[str, Any]

    def value(self, schema: Schema, path: SchemaPath, depth: int = 0) -> Expression:
        """Say a value that satisfies a schema."""
        if isinstance(schema, Mapping) and isinstance(reference := schema.get("$ref"), str):
            if reference in path.followed:
                msg = "this model's calls can't spell a recursive schema"
                raise path.error(msg)
            path = replace(path, followed=(*path.followed, reference))
        parts = list(parts_of(schema, self.root))
        if schema is True or not schema:
            return self.anything(FREE_DEPTH)
        if not parts:
            msg = "nothing satisfies it"
            raise path.error(msg)
        return choice([self._typed(kind, one, path, depth) for kind, one in parts])

    def anything(self, depth: int) -> Expression:
        """Say any value, nested to `depth`."""
        ways = [
            self._string({}),
            *(self._scalar({"type": k}, SchemaPath()) for k in ("number", "boolean", "null")),
        ]
        if depth:
            inside = self.anything(depth - 1)
            member = sequence(regex(_KEY), literal(":"), inside)
            for low, part, high in (("[", inside, "]"), ("{", member, "}")):
                ways.append(sequence(literal(low), separated(part, b",", 0, None), literal(high)))
        return choice(ways)

    def members(self, schema: Mapping[str, Any], path: SchemaPath) -> Expression:
        """Say the members of an object, without its braces."""
        if schema.get("additionalProperties", False) is not False:
            msg = "this model's calls have no spelling for additionalProperties beside properties"
            raise path.child("additionalProperties").error(msg, "additionalProperties")
        properties, required = members_of(schema), frozenset(schema.get("required", ()))
        named: list[tuple[Expression, bool]] = []
        for name in sorted(properties, key=str.lower):
            below = path.child("properties", name)
            if properties[name] is False and name not in required:
                continue
            if not re.fullmatch(_KEY, name):
                msg = f"'{name}' is no name that this model's calls can spell"
                raise below.error(msg, "properties")
            value = self.value(properties[name], below)
            named.append((sequence(literal(f"{name}:"), value), name in required))
        return _listed_members(named)

    def _typed(
        self, kind: str, schema: Mapping[str, Any], path: SchemaPath, depth: int
    ) -> Expression:
        if kind in _KEYWORDS:
            self._refuse_unknown(kind, schema, path)
        if kind == "string":
            return self._string(schema)
        if kind == "array":
            return self._array(schema, path, depth)
        if kind == "object":
            return self._object(schema, path)
        return self._scalar(schema, path)

    def _refuse_unknown(self, kind: str, schema: Mapping[str, Any], path: SchemaPath) -> None:
        known = _KEYWORDS[kind] | {"type"} | _DEFINITIONS
        of_others = {word for other, words in _KEYWORDS.items() if other != kind for word in words}
        for keyword, asked in schema.items():
            if keyword in KEYWORDS - known - of_others and _NEUTRAL.get(keyword, ...) != asked:
                msg = f"'{keyword}' can't be enforced in this model's calls"
                raise path.child(keyword).error(msg, keyword)

    def _string(self, schema: Mapping[str, Any]) -> Expression:
        quote = self.notation.quote
        if "enum" in schema:
            return choice(
                [literal(quote + one + quote) for one in schema["enum"] if quote not in one]
            )
        high = schema.get("maxLength")
        low = int(schema.get("minLength", 0))
        return sequence(literal(quote), raw_string(quote, low, None if high is None else int(high)))

    def _scalar(self, schema: Mapping[str, Any], path: SchemaPath) -> Expression:
        alone = {k: v for k, v in schema.items() if k not in _DEFINITIONS}
        try:
            return json_schema.value_grammar(alone)
        except UnsupportedSchema as error:
            raise path.error(error.reason) from error

    def _array(self, schema: Mapping[str, Any], path: SchemaPath, depth: int) -> Expression:
        if "enum" in schema:
            msg = "'enum' can't be enforced for lists in this model's calls"
            raise path.error(msg, "enum")
        item = self.value(schema.get("items", True), path.child("items"), depth + 1)
        low, high = int(schema.get("minItems", 0)), schema.get("maxItems")
        items = separated(item, b",", low, None if high is None else int(high))
        return sequence(literal("["), items, literal("]"))

    def _object(self, schema: Mapping[str, Any], path: SchemaPath) -> Expression:
        if "enum" in schema:
            msg = "'enum' can't be enforced for objects in this model's calls"
            raise path.error(msg, "enum")
        if "properties" in schema:
            return sequence(literal("{"), self.members(schema, path), literal("}"))
        further = schema.get("additionalProperties", True)
        if further is False:
            return literal("{}")
        inside = self.value(further, path.child("additionalProperties"))
        member = sequence(regex(_KEY), literal(":"), inside)
        return sequence(literal("{"), separated(member, b",", 0, None), literal("}"))


def _listed_members(named: Sequence[tuple[Expression, bool]]) -> Expression:
    """Say members in order with commas between, those that aren't required or not."""

    def add(net: NFA, start: int) -> int:
        # `first`: nothing said yet; `later`: a member stands before, so a comma must come.
        first: int | None = start
        later: int | None = None
        for member, required in named:
            entry, behind = net.add_node(), net.add_node()
            if first is not None:
                net.jumps.append((first, entry))
            if later is not None:
                net.jumps.append((net.literal(later, b","), entry))
            net.jumps.append((member(net, entry), behind))
            if required:
                first = None
            elif later is not None:
                net.jumps.append((later, behind))
            later = behind
        end = net.add_node()
        net.jumps += [(alive, end) for alive in (first, later) if alive is not None]
        return end

    return add
