"""From a JSON Schema to what may be said: every keyword is enforced exactly or refused.

Narrower than the schema is allowed where it harms nobody: members come in the order of
`properties`, text has one spelling (`", "` and `": "`, no other blanks), an object that says nothing
of additionalProperties gets none, numbers have at most 19 digits, values without a type nest to a
depth of `FREE_DEPTH`. Wider than the schema never is.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from falsework.grammars import values
from falsework.grammars.expressions import Expression, choice, separated, sequence

ANNOTATIONS = frozenset(
    "title description default examples deprecated $comment readOnly writeOnly $schema $id".split()
)
DEFINITIONS = frozenset({"$defs", "definitions"})
OF_TYPE = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
}
GENERAL = frozenset({"type", "enum", "const", "anyOf", "allOf", "$ref", "nullable"})
KNOWN = frozenset().union(ANNOTATIONS, DEFINITIONS, GENERAL, *OF_TYPE.values())
HARMLESS = {"uniqueItems": False, "minProperties": 0, "minContains": 0}
"""Keywords that aren't enforced, at the value that asks for nothing."""
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
DEPTH_LIMIT = 48
SCHEMA_LIMIT = 20_000
"""How many subschemas may be visited, each reference counted anew."""

Schema = Mapping[str, Any] | bool


class SchemaRefused(ValueError):
    """A schema that can't be enforced: `pointer` is the JSON pointer to the fault."""

    def __init__(self, reason: str, pointer: str, keyword: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer or "/"
        self.keyword = keyword


def arguments(parameters: Schema, spelling: values.Spelling = values.JSON) -> Expression:
    """Say the arguments of a tool; parameters that name no properties mean no arguments."""
    if not isinstance(parameters, Mapping):
        msg = "a tool's parameters must be a schema of type object"
        raise SchemaRefused(msg, "")
    if parameters.get("type", "object") != "object":
        msg = f"a tool's parameters must have type object, not {json.dumps(parameters['type'])}"
        raise SchemaRefused(msg, "/type", "type")
    closed = {"type": "object", **parameters}
    if not {"properties", "additionalProperties", "$ref", "anyOf", "allOf"} & closed.keys():
        closed["properties"] = {}
    compiler = _Compiler(closed, spelling)
    if spelling.bare_arguments:
        return compiler.object(compiler.resolved(closed, ""), "", bare=True)
    return compiler.value(closed, "")


def value(schema: Schema) -> Expression:
    """Say a JSON value that satisfies the schema."""
    return _Compiler(schema, values.JSON).value(schema, "")


@dataclass
class _Compiler:
    root: Schema
    spelling: values.Spelling
    visited: int = 0

    def __post_init__(self) -> None:
        """Refuse what isn't a JSON Schema at all."""
        try:
            jsonschema_rs.meta.validate(self.root)  # type: ignore[arg-type]
        except jsonschema_rs.ValidationError as fault:
            pointer = "".join(f"/{_escaped(str(step))}" for step in fault.instance_path)
            raise SchemaRefused(fault.message, pointer) from None
        except (ValueError, RecursionError) as fault:
            raise SchemaRefused(str(fault), "") from None

    def value(self, schema: Schema, pointer: str, within: tuple[str, ...] = ()) -> Expression:
        """Say a value that satisfies `schema`; `within` are the references being followed."""
        self._count(pointer, within)
        if schema is False:
            msg = "nothing satisfies false"
            raise SchemaRefused(msg, pointer)
        if schema is True or not isinstance(schema, Mapping):
            return values.anything(self.spelling)
        self._refuse_unknown(schema, pointer)
        if "enum" in schema or "const" in schema:
            return self._listed(schema, pointer)
        if "$ref" in schema:
            target = self._target(schema["$ref"], pointer, within)
            merged = self._merged(schema, "$ref", target, pointer)
            return self.value(merged, pointer, (*within, schema["$ref"]))
        if "allOf" in schema:
            return self.value(self._all(schema, pointer), pointer, (*within, pointer))
        if "anyOf" in schema:
            branches = [
                (self._merged(schema, "anyOf", branch, pointer), f"{pointer}/anyOf/{number}")
                for number, branch in enumerate(schema["anyOf"])
            ]
            # One more name on the way down: references into a branch are loops all the same.
            return choice([self.value(branch, where, within) for branch, where in branches])
        return self._typed(schema, pointer, within)

    def resolved(self, schema: Mapping[str, Any], pointer: str) -> Mapping[str, Any]:
        """Follow a chain of references from a schema that must be an object's."""
        within: tuple[str, ...] = ()
        while "$ref" in schema:
            target = self._target(schema["$ref"], pointer, within)
            within = (*within, schema["$ref"])
            merged = self._merged(schema, "$ref", target, pointer)
            assert isinstance(merged, Mapping)
            schema = merged
        self._refuse_unknown(schema, pointer)
        for keyword in ("anyOf", "allOf", "enum", "const"):
            if keyword in schema:
                msg = f"'{keyword}' can't stand at the top of this model's arguments"
                raise SchemaRefused(msg, pointer, keyword)
        return schema

    def object(
        self,
        schema: Mapping[str, Any],
        pointer: str,
        *,
        bare: bool = False,
        within: tuple[str, ...] = (),
    ) -> Expression:
        """Say an object, members in the order of `properties`; `bare`: as keyword arguments."""
        properties = dict(schema.get("properties", {}))
        required = schema.get("required", [])
        additional = schema.get("additionalProperties", "properties" not in schema and not bare)
        for name in required:
            if name not in properties:
                if additional is False:
                    msg = f"'{name}' is required, but neither a property nor an additional one"
                    raise SchemaRefused(msg, f"{pointer}/required", "required")
                properties[name] = additional
        members = [
            values.Member(
                name,
                self.value(below, f"{pointer}/properties/{_escaped(name)}", within),
                name in required,
            )
            for name, below in properties.items()
            if not (below is False and name not in required)
        ]
        extra = None
        if additional is not False:
            if bare:
                msg = "this model's calls have no spelling for additionalProperties"
                raise SchemaRefused(msg, f"{pointer}/additionalProperties", "additionalProperties")
            extra = self.value(additional, f"{pointer}/additionalProperties", within)
        try:
            return values.members(members, extra, self.spelling, bare=bare)
        except values.Unspellable as fault:
            raise SchemaRefused(str(fault), f"{pointer}/properties", "properties") from None

    def _array(
        self, schema: Mapping[str, Any], pointer: str, within: tuple[str, ...]
    ) -> Expression:
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        if high is not None and high < low:
            msg = f"maxItems {high} is less than minItems {low}"
            raise SchemaRefused(msg, pointer, "maxItems")
        items = schema.get("items", True)
        if items is False or high == 0:
            if low:
                msg = "items false leaves nothing for minItems"
                raise SchemaRefused(msg, pointer, "items")
            return values.word("[]")
        item = self.value(items, f"{pointer}/items", within)
        return sequence(
            values.word("["), separated(item, b", ", int(low), _whole(high)), values.word("]")
        )

    def _string(
        self, schema: Mapping[str, Any], pointer: str, _within: tuple[str, ...]
    ) -> Expression:
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        if high is not None and high < low:
            msg = f"maxLength {high} is less than minLength {low}"
            raise SchemaRefused(msg, pointer, "maxLength")
        return values.string(self.spelling, int(low), _whole(high))

    def _typed(
        self, schema: Mapping[str, Any], pointer: str, within: tuple[str, ...]
    ) -> Expression:
        named = schema.get("type", _implied(schema))
        if named is None:
            return values.anything(self.spelling)
        types = [named] if isinstance(named, str) else list(named)
        if schema.get("nullable") is True and "null" not in types:
            types.append("null")
        if "integer" in types and "number" in types:
            types.remove("integer")
        ways: dict[str, Callable[..., Expression]] = {
            "object": lambda: self.object(schema, pointer, within=within),
            "array": lambda: self._array(schema, pointer, within),
            "string": lambda: self._string(schema, pointer, within),
        }
        return choice(
            [ways[kind]() if kind in ways else values.scalar(kind, self.spelling) for kind in types]
        )

    def _listed(self, schema: Mapping[str, Any], pointer: str) -> Expression:
        """Say one of the listed values that the whole subschema accepts, whatever stands beside."""
        listed = schema["enum"] if "enum" in schema else [schema["const"]]
        beside = {k: v for k, v in schema.items() if k not in ANNOTATIONS and k != "nullable"}
        if schema.get("nullable") is True and None in listed and "type" in beside:
            beside["type"] = [*([beside["type"]] if isinstance(beside["type"], str) else beside["type"]), "null"]
        if isinstance(self.root, Mapping):
            beside |= {name: self.root[name] for name in DEFINITIONS if name in self.root}
        judge = jsonschema_rs.validator_for(beside)
        fitting = [one for one in listed if judge.is_valid(one)]
        if not fitting:
            msg = "no listed value satisfies the rest of the schema"
            raise SchemaRefused(msg, pointer, "enum" if "enum" in schema else "const")
        try:
            return choice([values.exactly(one, self.spelling) for one in fitting])
        except values.Unspellable as fault:
            raise SchemaRefused(str(fault), pointer, "enum") from None

    def _target(self, reference: str, pointer: str, within: tuple[str, ...]) -> Schema:
        """Return the subschema that a local reference names."""
        if reference in within:
            msg = f"'{reference}' is recursive, which can't be enforced yet"
            raise SchemaRefused(msg, pointer, "$ref")
        if reference != "#" and not reference.startswith("#/"):
            msg = f"'{reference}' is not a reference into this schema (#/…)"
            raise SchemaRefused(msg, pointer, "$ref")
        found: Any = self.root
        for step in reference[1:].split("/")[1:]:
            found = _below(found, step.replace("~1", "/").replace("~0", "~"))
            if found is None:
                msg = f"'{reference}' leads nowhere"
                raise SchemaRefused(msg, pointer, "$ref")
        if not isinstance(found, Mapping | bool):
            msg = f"'{reference}' leads to no schema"
            raise SchemaRefused(msg, pointer, "$ref")
        return found

    def _all(self, schema: Mapping[str, Any], pointer: str) -> Schema:
        """Join the parts of an allOf whose keywords don't meet."""
        joined: Schema = {k: v for k, v in schema.items() if k != "allOf"}
        for part in schema["allOf"]:
            joined = self._merged({**joined, "allOf": None}, "allOf", part, pointer)  # type: ignore[dict-item]
        return joined

    def _merged(
        self, schema: Mapping[str, Any], keyword: str, branch: Schema, pointer: str
    ) -> Schema:
        """Put the keywords beside `keyword` into the branch; refuse where both say something."""
        beside = {k: v for k, v in schema.items() if k != keyword}
        asking = {k: v for k, v in beside.items() if k not in ANNOTATIONS | DEFINITIONS}
        if branch is True:
            return beside
        if branch is False or not isinstance(branch, Mapping):
            return False
        met = [k for k in asking if k in branch and branch[k] != asking[k]]
        closing = _closes(asking, branch) or _closes(branch, asking)
        if met or closing:
            both = met[0] if met else "additionalProperties"
            msg = f"'{both}' beside '{keyword}' and inside it can't be enforced together yet"
            raise SchemaRefused(msg, pointer, keyword)
        return {**branch, **asking}

    def _refuse_unknown(self, schema: Mapping[str, Any], pointer: str) -> None:
        for keyword, said in schema.items():
            if keyword not in KNOWN and not (keyword in HARMLESS and said == HARMLESS[keyword]):
                msg = f"'{keyword}' can't be enforced"
                raise SchemaRefused(msg, f"{pointer}/{_escaped(keyword)}", keyword)

    def _count(self, pointer: str, within: tuple[str, ...]) -> None:
        self.visited += 1
        if self.visited > SCHEMA_LIMIT:
            msg = f"it has more than {SCHEMA_LIMIT} subschemas, each reference counted anew"
            raise SchemaRefused(msg, pointer)
        if pointer.count("/") + 2 * len(within) > 2 * DEPTH_LIMIT:
            msg = f"it nests deeper than {DEPTH_LIMIT} levels"
            raise SchemaRefused(msg, pointer)


def _closes(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether `one` forbids members that only `other` names: joined, they'd be allowed."""
    additional = one.get("additionalProperties", True)
    return additional not in (True, {}) and "properties" in other and "properties" not in one


def _implied(schema: Mapping[str, Any]) -> str | None:
    """Return the type whose keywords a schema without `type` uses."""
    return next((kind for kind, words in OF_TYPE.items() if words & schema.keys()), None)


def _whole(bound: float | None) -> int | None:
    return None if bound is None else int(bound)


def _below(found: object, step: str) -> object:
    if isinstance(found, Mapping):
        return found.get(step)
    if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
        return found[int(step)]
    return None


def _escaped(step: str) -> str:
    """Escape one step of a JSON pointer (RFC 6901)."""
    return step.replace("~", "~0").replace("/", "~1")
