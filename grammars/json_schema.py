"""From a JSON Schema to what may be said: every keyword is enforced exactly or refused.

Narrower than the schema is allowed where it harms nobody: members come in the order of
`properties`, text has one spelling (`", "` and `": "`, no other blanks), an object that says
nothing of additionalProperties gets none, numbers have at most 19 digits, values without a type
nest to a depth of `FREE_DEPTH`. Wider than the schema never is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from falsework.grammars import json_values
from falsework.grammars.expressions import Expression, choice, separated, sequence
from falsework.grammars.schema_errors import SchemaPath, UnsupportedSchema, escape_pointer

ANNOTATIONS = frozenset(
    {
        "title", "description", "default", "examples", "deprecated", "$comment", "readOnly",
        "writeOnly", "$schema", "$id",
    }
)  # fmt: skip
DEFINITIONS = frozenset({"$defs", "definitions"})
TYPE_KEYWORDS = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
}
COMMON_KEYWORDS = frozenset({"type", "enum", "const", "anyOf", "allOf", "$ref", "nullable"})
SUPPORTED_KEYWORDS = frozenset().union(
    ANNOTATIONS, DEFINITIONS, COMMON_KEYWORDS, *TYPE_KEYWORDS.values()
)
NEUTRAL_VALUES = {"uniqueItems": False, "minProperties": 0, "minContains": 0}
"""Keywords that aren't enforced, at the value that asks for nothing."""
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
DEPTH_LIMIT = 48
SCHEMA_LIMIT = 20_000
"""How many subschemas may be visited, each reference counted anew."""

NO_REMOTE_REFS = jsonschema_rs.Registry([])
"""No schema is fetched because another names it."""

ROOT = SchemaPath()

Schema = Mapping[str, Any] | bool


def arguments_grammar(
    parameters: Schema, spelling: json_values.Notation = json_values.JSON
) -> Expression:
    """Say the arguments of a tool; parameters that name no properties mean no arguments."""
    if not isinstance(parameters, Mapping):
        msg = "a tool's parameters must be a schema of type object"
        raise UnsupportedSchema(msg, "")
    if parameters.get("type", "object") != "object":
        msg = f"a tool's parameters must have type object, not {json.dumps(parameters['type'])}"
        raise UnsupportedSchema(msg, "/type", "type")
    closed = {"type": "object", **parameters}
    if not {"properties", "additionalProperties", "$ref", "anyOf", "allOf"} & closed.keys():
        closed["properties"] = {}
    compiler = _Compiler(closed, spelling)
    if spelling.bare_arguments:
        return compiler.object(*compiler.resolved(closed), bare=True)
    return compiler.value(closed)


def value_grammar(schema: Schema) -> Expression:
    """Say a JSON value that satisfies the schema."""
    return _Compiler(schema, json_values.JSON).value(schema)


@dataclass
class _Compiler:
    root: Schema
    spelling: json_values.Notation
    visited: int = 0

    def __post_init__(self) -> None:
        """Refuse what isn't a JSON Schema at all."""
        try:
            jsonschema_rs.meta.validate(self.root, NO_REMOTE_REFS)  # type: ignore[arg-type]
        except jsonschema_rs.ValidationError as fault:
            pointer = "".join(f"/{escape_pointer(str(step))}" for step in fault.instance_path)
            raise UnsupportedSchema(fault.message, pointer) from None
        except jsonschema_rs.ReferencingError:
            msg = "no such dialect of JSON Schema is known"
            raise UnsupportedSchema(msg, "/$schema", "$schema") from None
        except (ValueError, RecursionError) as fault:
            raise UnsupportedSchema(str(fault), "") from None

    def value(self, schema: Schema, place: SchemaPath = ROOT) -> Expression:
        """Say a value that satisfies `schema`."""
        self._count(place)
        if schema is False:
            msg = "nothing satisfies false"
            raise place.error(msg)
        if schema is True or not isinstance(schema, Mapping):
            return json_values.any_value(self.spelling)
        self._refuse_unknown(schema, place)
        if "enum" in schema or "const" in schema:
            return self._listed(schema, place)
        if "$ref" in schema:
            return self.value(*self._followed(schema, place))
        if "allOf" in schema:
            return self.value(self._all(schema, place), place)
        if "anyOf" in schema:
            branches = [
                (self._merged(schema, "anyOf", branch, place), place.child("anyOf", str(number)))
                for number, branch in enumerate(schema["anyOf"])
            ]
            return choice([self.value(branch, below) for branch, below in branches])
        return self._typed(schema, place)

    def resolved(self, schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], SchemaPath]:
        """Follow references from a schema that must be an object's, to where the object stands."""
        place = SchemaPath()
        while "$ref" in schema:
            target, place = self._followed(schema, place)
            schema = target if isinstance(target, Mapping) else {}
        self._refuse_unknown(schema, place)
        for keyword in ("anyOf", "allOf", "enum", "const"):
            if keyword in schema:
                msg = f"'{keyword}' can't stand at the top of this model's arguments"
                raise place.error(msg, keyword)
        return schema, place

    def object(
        self, schema: Mapping[str, Any], place: SchemaPath, *, bare: bool = False
    ) -> Expression:
        """Say an object, members in the order of `properties`; `bare`: as keyword arguments."""
        properties = dict(schema.get("properties", {}))
        required = schema.get("required", [])
        additional = schema.get("additionalProperties", "properties" not in schema and not bare)
        for name in required:
            if name not in properties:
                if additional is False:
                    msg = f"'{name}' is required, but neither a property nor an additional one"
                    raise place.child("required").error(msg, "required")
                properties[name] = additional
        members = [
            json_values.Property(
                name, self.value(one, place.child("properties", name)), name in required
            )
            for name, one in properties.items()
            if not (one is False and name not in required)
        ]
        extra = None
        if additional is not False:
            further = place.child("additionalProperties")
            if bare:
                msg = "this model's calls have no spelling for additionalProperties"
                raise further.error(msg, "additionalProperties")
            extra = self.value(additional, further)
        try:
            return json_values.object_grammar(members, extra, self.spelling, bare=bare)
        except json_values.NotRepresentable as fault:
            raise place.child("properties").error(str(fault), "properties") from None

    def _array(self, schema: Mapping[str, Any], place: SchemaPath) -> Expression:
        low, high = _bounds(schema, "minItems", "maxItems", place)
        items = schema.get("items", True)
        if items is False or high == 0:
            if low:
                msg = "items false leaves nothing for minItems"
                raise place.error(msg, "items")
            return json_values.word("[]")
        item = self.value(items, place.child("items"))
        return sequence(
            json_values.word("["), separated(item, b", ", low, high), json_values.word("]")
        )

    def _string(self, schema: Mapping[str, Any], place: SchemaPath) -> Expression:
        return json_values.string(self.spelling, *_bounds(schema, "minLength", "maxLength", place))

    def _typed(self, schema: Mapping[str, Any], place: SchemaPath) -> Expression:
        named = schema.get("type", _implied(schema))
        if named is None:
            return json_values.any_value(self.spelling)
        types = [named] if isinstance(named, str) else list(named)
        if schema.get("nullable") is True and "null" not in types:
            types.append("null")
        if "integer" in types and "number" in types:
            types.remove("integer")
        with_parts = {"object": self.object, "array": self._array, "string": self._string}
        return choice(
            [
                with_parts[kind](schema, place)
                if kind in with_parts
                else json_values.scalar(kind, self.spelling)
                for kind in types
            ]
        )

    def _listed(self, schema: Mapping[str, Any], place: SchemaPath) -> Expression:
        """Say one of the listed values that the whole subschema accepts, whatever stands beside."""
        listed = schema["enum"] if "enum" in schema else [schema["const"]]
        beside = {k: v for k, v in schema.items() if k not in ANNOTATIONS}
        if beside.pop("nullable", False) is True and "type" in beside:
            types = beside["type"]
            beside["type"] = sorted({*([types] if isinstance(types, str) else types), "null"})
        if isinstance(self.root, Mapping):
            beside |= {name: self.root[name] for name in DEFINITIONS if name in self.root}
        keyword = "enum" if "enum" in schema else "const"
        try:
            judge = jsonschema_rs.validator_for(beside, offline=True)
        except ValueError as fault:
            raise place.error(str(fault).splitlines()[0], keyword) from None
        fitting = [one for one in listed if judge.is_valid(one)]
        if not fitting:
            msg = "no listed value satisfies the rest of the schema"
            raise place.error(msg, keyword)
        try:
            return choice([json_values.constant(one, self.spelling) for one in fitting])
        except json_values.NotRepresentable as fault:
            raise place.error(str(fault), keyword) from None

    def _followed(self, schema: Mapping[str, Any], place: SchemaPath) -> tuple[Schema, SchemaPath]:
        """Return the subschema that a local reference names, with what stands beside it."""
        reference = schema["$ref"]
        if reference in place.followed:
            msg = f"'{reference}' is recursive, which can't be enforced yet"
            raise place.error(msg, "$ref")
        if reference != "#" and not reference.startswith("#/"):
            msg = f"'{reference}' is not a reference into this schema (#/…)"
            raise place.error(msg, "$ref")
        found: Any = self.root
        for step in reference[1:].split("/")[1:]:
            found = _below(found, step.replace("~1", "/").replace("~0", "~"))
        if not isinstance(found, Mapping | bool):
            msg = f"'{reference}' leads to no schema"
            raise place.error(msg, "$ref")
        return self._merged(schema, "$ref", found, place), place.follow_ref(reference)

    def _all(self, schema: Mapping[str, Any], place: SchemaPath) -> Schema:
        """Join the parts of an allOf whose keywords don't meet."""
        joined: Schema = {k: v for k, v in schema.items() if k != "allOf"}
        for part in schema["allOf"]:
            if not isinstance(joined, Mapping):
                return joined
            joined = self._merged(joined, "allOf", part, place)
        return joined

    def _merged(
        self, schema: Mapping[str, Any], keyword: str, branch: Schema, place: SchemaPath
    ) -> Schema:
        """Put the keywords beside `keyword` into the branch; refuse where both say something."""
        asking = {k: v for k, v in schema.items() if k not in ANNOTATIONS | DEFINITIONS | {keyword}}
        if branch is True:
            return asking
        if branch is False or not isinstance(branch, Mapping):
            return False
        met = [k for k in asking if k in branch and branch[k] != asking[k]]
        if not met and (_closes(asking, branch) or _closes(branch, asking)):
            met = ["additionalProperties"]
        if met:
            msg = f"'{met[0]}' beside '{keyword}' and inside it can't be enforced together yet"
            raise place.error(msg, keyword)
        return {**branch, **asking}

    def _refuse_unknown(self, schema: Mapping[str, Any], place: SchemaPath) -> None:
        for keyword, said in schema.items():
            if keyword not in SUPPORTED_KEYWORDS and not (
                keyword in NEUTRAL_VALUES and said == NEUTRAL_VALUES[keyword]
            ):
                msg = f"'{keyword}' can't be enforced"
                raise place.child(keyword).error(msg, keyword)

    def _count(self, place: SchemaPath) -> None:
        self.visited += 1
        if self.visited > SCHEMA_LIMIT:
            msg = f"it has more than {SCHEMA_LIMIT} subschemas, each reference counted anew"
            raise place.error(msg)
        if place.depth > DEPTH_LIMIT:
            msg = f"it nests deeper than {DEPTH_LIMIT} levels"
            raise place.error(msg)


def _closes(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether `one` forbids members that only `other` names: joined, they'd be allowed."""
    additional = one.get("additionalProperties", True)
    return additional not in (True, {}) and "properties" in other and "properties" not in one


def _implied(schema: Mapping[str, Any]) -> str | None:
    """Return the type whose keywords a schema without `type` uses."""
    return next((kind for kind, words in TYPE_KEYWORDS.items() if words & schema.keys()), None)


def _bounds(
    schema: Mapping[str, Any], lowest: str, highest: str, place: SchemaPath
) -> tuple[int, int | None]:
    """Return the two bounds of a length; None: no upper bound."""
    low, high = schema.get(lowest, 0), schema.get(highest)
    if high is not None and high < low:
        msg = f"{highest} {high} is less than {lowest} {low}"
        raise place.error(msg, highest)
    return int(low), None if high is None else int(high)


def _below(found: object, step: str) -> object:
    if isinstance(found, Mapping):
        return found.get(step)
    if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
        return found[int(step)]
    return None
