"""Arguments as elements: strings raw, everything else as JSON, told apart without a guess."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from falsework.grammars import schema_plan
from falsework.grammars.call_formats import ElementNotation
from falsework.grammars.expressions import Expression, choice, literal, optional, sequence
from falsework.grammars.free_text import raw_string
from falsework.grammars.schema_errors import SchemaPath, UnsupportedSchema
from falsework.grammars.schema_keywords import KEYWORDS

PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
"""What templates that print Python values write for true, false and null."""

_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_LOOKS_LIKE = {
    "object": r"\{(?s:.)*",
    "array": r"\[(?s:.)*",
    "number": _NUMBER,
    "boolean": "true|false",
    "null": "null",
}
"""Text that isn't a string where its schema admits this type too, as a regex."""
_WORDS_LOOK_LIKE = {"boolean": "True|False", "null": "None"}
_TYPES = frozenset({"string", *_LOOKS_LIKE})
_STRING_KEYWORDS = ("pattern", "format", "contentEncoding", "contentMediaType", "not", "if")
_OBJECT_KEYWORDS = (
    "anyOf",
    "oneOf",
    "not",
    "if",
    "enum",
    "const",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
)
"""What this module can't enforce for a raw string, or for an object that isn't JSON."""
_DEFINITIONS = ("$defs", "definitions")
TYPE_KEYWORDS = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
}
"""Keywords that tell the type of a schema without one."""

Schema = Mapping[str, Any] | bool


def looks_like(types: frozenset[str], *, python_words: bool) -> str:
    """Return the regex of all text that isn't a string where a schema admits these types."""
    ways = [_LOOKS_LIKE[kind] for kind in sorted(types - {"string"})]
    if python_words:
        ways += [_WORDS_LOOK_LIKE[kind] for kind in sorted(types & _WORDS_LOOK_LIKE.keys())]
    return "|".join(ways)


def argument_types(parameters: Schema) -> dict[str, frozenset[str]]:
    """Return the JSON types that each argument of a tool may have; integers are numbers."""
    root = parameters if isinstance(parameters, Mapping) else {}
    return {
        name: frozenset(kind for kind, _ in parts_of(one, root))
        for name, one in members_of(object_of(root)).items()
    }


def elements_grammar(parameters: Schema, elements: ElementNotation) -> Expression:
    """Say a tool's arguments as elements, in the order of `properties`.

    Raise UnsupportedSchema where elements can't spell it.
    """
    root = parameters if isinstance(parameters, Mapping) else {}
    schema = object_of(root)
    if schema.get("additionalProperties", False) is not False:
        msg = "this model's calls have no spelling for additionalProperties"
        raise UnsupportedSchema(msg, "/additionalProperties", "additionalProperties")
    required = frozenset(schema.get("required", ()))
    parts = []
    for name, one in members_of(schema).items():
        path = SchemaPath().child("properties", name)
        parts_of_one = list(parts_of(one, root))
        if parts_of_one or name in required:
            element = _Argument(elements, root, name, path).element(parts_of_one)
            parts.append(element if name in required else optional(element))
    return sequence(*parts)


def members_of(schema: Mapping[str, Any]) -> dict[str, Schema]:
    """Return the schemas of an object's members by name; one that is only required is free."""
    properties = schema.get("properties", {})
    unnamed = [name for name in schema.get("required", ()) if name not in properties]
    return {**properties, **dict.fromkeys(unnamed, True)}


def object_of(root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of the arguments object, references and allOf followed."""
    schema = _followed(root, root)
    for keyword in _OBJECT_KEYWORDS:
        if keyword in schema:
            msg = f"'{keyword}' can't stand at the top of this model's arguments"
            raise UnsupportedSchema(msg, f"/{keyword}", keyword)
    return schema


def _followed(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put into a schema what its $ref and allOf lead to."""
    seen: set[str] = set()
    while "$ref" in schema and schema["$ref"] not in seen:
        seen.add(schema["$ref"])
        found: Any = root
        for step in schema["$ref"].removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            found = found.get(key, {}) if isinstance(found, Mapping) else {}
        beside = {k: v for k, v in schema.items() if k != "$ref"}
        schema = {**found, **beside} if isinstance(found, Mapping) else beside
    for part in schema.get("allOf", ()):
        inside = _followed(part, root) if isinstance(part, Mapping) else {}
        for keyword in inside.keys() & schema.keys() & KEYWORDS:
            if inside[keyword] != schema[keyword]:
                msg = f"'{keyword}' inside and beside 'allOf' can't be enforced together"
                raise UnsupportedSchema(msg, "", "allOf")
        schema = {**inside, **schema}
    return {k: v for k, v in schema.items() if k != "allOf"}


def parts_of(schema: Schema, root: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Cut a schema into (type, schema of values of that type alone)."""
    if schema is False:
        return
    if not isinstance(schema, Mapping):
        yield from ((kind, {"type": kind}) for kind in sorted(_TYPES))
        return
    schema = _followed(schema, root)
    if "const" in schema or "enum" in schema:
        yield from _listed_parts(schema)
        return
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            yield from _branches(schema, keyword, root)
            return
    rest = {k: v for k, v in schema.items() if k != "nullable"}
    for kind in _named_types(schema):
        yield "number" if kind == "integer" else kind, {**rest, "type": kind}


def _branches(
    schema: Mapping[str, Any], keyword: str, root: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the parts of an anyOf, or of a oneOf whose branches have no type in common."""
    beside = {k: v for k, v in schema.items() if k != keyword}
    seen: set[str] = set()
    for branch in schema[keyword]:
        if branch is False:
            continue
        merged = {**beside, **branch} if isinstance(branch, Mapping) else beside
        parts = list(parts_of(merged, root))
        kinds = {kind for kind, _ in parts}
        if keyword == "oneOf" and kinds & seen:
            msg = "'oneOf' can't be enforced here between values of one type"
            raise UnsupportedSchema(msg, "", keyword)
        seen |= kinds
        yield from parts


def _listed_parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    values = [schema["const"]] if "const" in schema else schema["enum"]
    rest = {k: v for k, v in schema.items() if k not in {"const", "enum", "type", "nullable"}}
    named = set(_named_types(schema)) if "type" in schema else set(_TYPES)
    named |= {"number"} if "integer" in named else set()
    for kind in sorted(named & _TYPES):
        of_kind = [one for one in values if _json_type(one) == kind]
        if of_kind:
            yield kind, {**rest, "enum": of_kind}


def _named_types(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that a schema names, or implies by keywords; all where it does neither."""
    named = schema.get("type")
    if named is None:
        implied = [kind for kind, words in TYPE_KEYWORDS.items() if words & schema.keys()]
        return implied[:1] or sorted(_TYPES)
    types = [named] if isinstance(named, str) else list(named)
    if "number" in types:
        types = [kind for kind in types if kind != "integer"]
    return [*types, "null"] if schema.get("nullable") is True and "null" not in types else types


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    kinds = {str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return kinds[type(value)]


@dataclass(frozen=True)
class _Argument:
    """One argument and how its element is said; `path` is where its schema stands."""

    elements: ElementNotation
    root: Mapping[str, Any]
    name: str
    path: SchemaPath

    def element(self, parts: list[tuple[str, Mapping[str, Any]]]) -> Expression:
        """Say the element, whatever type its value has."""
        types = frozenset(kind for kind, _ in parts)
        marked = bool(self.elements.after_string_key)
        unlike = "" if marked else looks_like(types, python_words=self.elements.python_words)
        ways: list[Expression] = []
        for kind, schema in parts:
            string = kind == "string"
            value = self._string(schema, unlike) if string else self._json(kind, schema)
            opening = self.elements.opening(self.name, string=string)
            ways += [sequence(literal(opening), value)] if value else []
        if not ways:
            msg = "nothing satisfies it that this model's calls can spell"
            raise self.path.error(msg)
        return choice(ways)

    def _json(self, kind: str, schema: Mapping[str, Any]) -> Expression:
        definitions = {name: self.root[name] for name in _DEFINITIONS if name in self.root}
        value = schema_plan.plan({**schema, **definitions}).expression
        if value is None:
            msg = "this model's calls can't spell a recursive schema"
            raise self.path.error(msg)
        listed = schema.get("enum", [True, False, None])
        words = [
            literal(word)
            for word, spelled in PYTHON_WORDS.items()
            if self.elements.python_words
            and _json_type(json.loads(spelled)) == kind
            and any(one is json.loads(spelled) for one in listed)
        ]
        return sequence(choice([value, *words]), literal(self.elements.after_value))

    def _string(self, schema: Mapping[str, Any], unlike: str) -> Expression | None:
        if "enum" in schema:
            return self._listed(schema, unlike)
        for keyword in _STRING_KEYWORDS:
            if keyword in schema:
                msg = f"'{keyword}' can't be enforced for a string that this model's calls say raw"
                raise self.path.child(keyword).error(msg, keyword)
        low, high = int(schema.get("minLength", 0)), schema.get("maxLength")
        return raw_string(
            self.elements.after_value, low, None if high is None else int(high), unlike
        )

    def _listed(self, schema: Mapping[str, Any], unlike: str) -> Expression | None:
        """Say one of these strings, but for those that can't be told from what follows them."""
        closing = self.elements.after_value
        judge = jsonschema_rs.validator_for({"type": "string", **schema}, offline=True)
        sayable = [
            value
            for value in schema["enum"]
            if judge.is_valid(value)
            and (value + closing).find(closing) == len(value)
            and not (unlike and re.fullmatch(unlike, value))
        ]
        return choice([literal(value + closing) for value in sayable]) if sayable else None
