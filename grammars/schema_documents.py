"""A JSON Schema document: its draft, its subschemas in the spelling of 2020-12, its references.

`$schema` picks the draft; without it, it is 2020-12 with the spellings of OpenAPI 3.0 (`nullable`,
boolean `exclusiveMinimum`) and of older drafts (tuple `items`, `dependencies`) in their meaning.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs
import referencing
import referencing.exceptions
import referencing.jsonschema
from jsonschema_specifications import REGISTRY

from falsework.grammars.schema_errors import SchemaTooHard, UnsupportedSchema, escape_pointer

Schema = Mapping[str, Any] | bool

DRAFTS = {
    "http://json-schema.org/draft-04/schema": "4",
    "http://json-schema.org/draft-06/schema": "6",
    "http://json-schema.org/draft-07/schema": "7",
    "https://json-schema.org/draft/2019-09/schema": "2019-09",
    "https://json-schema.org/draft/2020-12/schema": "2020-12",
}
LATEST = "2020-12"
REF_ALONE = frozenset({"4", "6", "7"})
"""Drafts in which nothing beside `$ref` counts."""
_TUPLE_ITEMS = frozenset({"4", "6", "7", "2019-09"})

NO_REMOTE_REFS = jsonschema_rs.Registry([])
"""No schema is fetched because another names it."""


@dataclass(frozen=True, eq=False)
class Subschema:
    """A schema inside a document; two are equal only if they are the same place."""

    schema: Schema
    pointer: str
    draft: str
    resolver: Any
    serial: int

    def get(self, keyword: str, default: Any = None) -> Any:
        """Return what a keyword says here."""
        return self.schema.get(keyword, default) if isinstance(self.schema, Mapping) else default

    def __contains__(self, keyword: str) -> bool:
        """Tell whether a keyword stands here."""
        return isinstance(self.schema, Mapping) and keyword in self.schema

    @property
    def keywords(self) -> frozenset[str]:
        """The keywords and annotations that stand here."""
        return frozenset(self.schema if isinstance(self.schema, Mapping) else ())

    def error(self, reason: str, keyword: str | None = None) -> UnsupportedSchema:
        """Return the refusal of a keyword here."""
        below = f"/{escape_pointer(keyword)}" if keyword else ""
        return UnsupportedSchema(reason, self.pointer + below, keyword)


@dataclass
class Document:
    """A schema and all that it refers to."""

    schema: Schema
    draft: str = LATEST
    root: Subschema = field(init=False)
    _known: dict[tuple[int, str, str], Subschema] = field(default_factory=dict)
    _kept: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find the references' targets."""
        specification = _SPECIFICATIONS[self.draft]
        resource = specification.create_resource(self.schema)
        name = resource.id() or ""
        registry = REGISTRY.with_resource(name, resource)
        if isinstance(self.schema, Mapping):
            legacy = self.schema.get("id")
            if isinstance(legacy, str) and not name:
                registry = registry.with_resource(legacy.rstrip("#"), resource)
        try:
            resolver = registry.crawl().resolver(name)
        except (AttributeError, TypeError, ValueError, KeyError) as fault:
            msg = "its identifiers can't be read"
            raise UnsupportedSchema(msg, "") from fault
        self.root = self._at(self.schema, "", self.draft, resolver)

    def _at(self, schema: Any, pointer: str, draft: str, resolver: Any) -> Subschema:
        # Resolvers of one base URI find the same; the dynamic scope counts for $dynamicRef only.
        key = (id(schema), pointer if isinstance(schema, bool) else "", _base(resolver))
        known = self._known.get(key)
        if known is None:
            known = Subschema(schema, pointer, draft, resolver, len(self._known))
            self._known[key] = known
        return known

    def child(self, of: Subschema, *steps: str) -> Subschema:
        """Return the subschema behind some steps (keyword, name or number)."""
        found: Any = of.schema
        for step in steps:
            found = found[int(step)] if isinstance(found, list | tuple) else found[step]
        below = "".join(f"/{escape_pointer(step)}" for step in steps)
        resolver = of.resolver
        if isinstance(found, Mapping) and ("$id" in found or "id" in found):
            resource = _SPECIFICATIONS[of.draft].create_resource(found)
            resolver = resolver.in_subresource(resource)
        return self._at(found, of.pointer + below, of.draft, resolver)

    def made(self, schema: Schema, of: Subschema, pointer: str) -> Subschema:
        """Return a subschema that stands for what the spelling of `of` only implies."""
        self._kept.append(schema)
        return self._at(schema, pointer, of.draft, of.resolver)

    def followed(self, of: Subschema, keyword: str) -> Subschema:
        """Return the subschema that a reference names."""
        reference = of.get(keyword)
        try:
            if keyword == "$recursiveRef":
                found = referencing.jsonschema.lookup_recursive_ref(of.resolver)
            else:
                found = of.resolver.lookup(reference)
        except referencing.exceptions.Unresolvable:
            msg = f"'{reference}' is not a reference into this schema (#/…)"
            raise of.error(msg, keyword) from None
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as fault:
            msg = f"'{reference}' can't be followed"
            raise of.error(msg, keyword) from fault
        contents: Any = found.contents
        if not isinstance(contents, Mapping | bool):
            msg = f"'{reference}' leads to no schema"
            raise of.error(msg, keyword)
        pointer = reference[1:] if reference.startswith(("#/", "#")) else of.pointer + f"/{keyword}"
        draft = of.draft
        if isinstance(found.contents, Mapping):
            draft = draft_of(found.contents, of.draft)
        return self._at(found.contents, pointer, draft, found.resolver)


_SPECIFICATIONS: dict[str, Any] = {
    "4": referencing.jsonschema.DRAFT4,
    "6": referencing.jsonschema.DRAFT6,
    "7": referencing.jsonschema.DRAFT7,
    "2019-09": referencing.jsonschema.DRAFT201909,
    "2020-12": referencing.jsonschema.DRAFT202012,
}


def _base(resolver: Any) -> str:
    return str(resolver._base_uri)  # noqa: SLF001 - referencing has no other name for it


def draft_of(schema: Schema, default: str = LATEST) -> str:
    """Return the draft that `$schema` names."""
    named = schema.get("$schema") if isinstance(schema, Mapping) else None
    if named is None:
        return default
    if not isinstance(named, str):
        msg = "$schema must be a string"
        raise UnsupportedSchema(msg, "/$schema", "$schema")
    draft = DRAFTS.get(named.rstrip("#").replace("https://json-schema.org/draft-", _HTTP))
    if named.partition("://")[2].startswith("json-schema.org/schema"):
        draft = LATEST
    if draft is None:
        msg = f"no dialect of JSON Schema '{named}' is known"
        raise UnsupportedSchema(msg, "/$schema", "$schema")
    return draft


_HTTP = "http://json-schema.org/draft-"


def open_document(schema: Any, depth_limit: int, bytes_limit: int) -> Document:
    """Read a document: respell what older drafts and OpenAPI 3.0 write, and validate it."""
    if not isinstance(schema, Mapping | bool):
        msg = "a schema is an object or a boolean"
        raise UnsupportedSchema(msg, "")
    _check_size(schema, depth_limit, bytes_limit)
    draft = draft_of(schema)
    open_api = not (isinstance(schema, Mapping) and "$schema" in schema)
    respelled = _respelled(schema, draft, open_api)
    _validate(respelled)
    return Document(respelled, draft)


def _check_size(schema: Any, depth_limit: int, bytes_limit: int) -> None:
    """Refuse what nests too deep or is too large, without recursion."""
    stack = [(schema, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > 2 * depth_limit:
            msg = f"it nests deeper than {depth_limit} levels"
            raise SchemaTooHard(msg, "")
        if isinstance(value, Mapping):
            stack += [(one, depth + 1) for one in value.values()]
        elif isinstance(value, list | tuple):
            stack += [(one, depth + 1) for one in value]
    try:
        size = len(
            json.dumps(schema, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")
        )
    except (TypeError, ValueError) as fault:
        msg = "it is no JSON"
        raise UnsupportedSchema(msg, "") from fault
    if size > bytes_limit:
        msg = f"it has {size} bytes, more than {bytes_limit}"
        raise SchemaTooHard(msg, "")


def _validate(schema: Schema) -> None:
    """Refuse what isn't a JSON Schema at all."""
    try:
        jsonschema_rs.meta.validate(schema, NO_REMOTE_REFS)  # type: ignore[arg-type]
    except jsonschema_rs.ValidationError as fault:
        pointer = "".join(f"/{escape_pointer(str(step))}" for step in fault.instance_path)
        raise UnsupportedSchema(fault.message[:500], pointer) from None
    except jsonschema_rs.ReferencingError:
        msg = "no such dialect of JSON Schema is known"
        raise UnsupportedSchema(msg, "/$schema", "$schema") from None
    except (ValueError, RecursionError) as fault:
        raise UnsupportedSchema(str(fault)[:500], "") from None


_MAPS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
_SCHEMAS = frozenset(
    {
        "additionalProperties",
        "items",
        "contains",
        "not",
        "if",
        "then",
        "else",
        "propertyNames",
        "additionalItems",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})


def _respelled(schema: Any, draft: str, open_api: bool) -> Any:
    """Return the schema with what its draft doesn't know in the spelling that it knows."""
    if not isinstance(schema, Mapping):
        return schema
    if draft in REF_ALONE and isinstance(schema.get("$ref"), str):
        return {**schema}
    made: dict[str, Any] = {}
    for keyword, said in schema.items():
        if keyword in _MAPS and isinstance(said, Mapping):
            made[keyword] = {k: _respelled(v, draft, open_api) for k, v in said.items()}
        elif keyword in _LISTS and isinstance(said, list | tuple):
            made[keyword] = [_respelled(one, draft, open_api) for one in said]
        elif keyword in _SCHEMAS:
            made[keyword] = _respelled(said, draft, open_api)
        else:
            made[keyword] = said
    _tuple_items(made, draft)
    if open_api:
        _exclusive_flags(made)
        _nullable(made)
    return made


def _tuple_items(schema: dict[str, Any], draft: str) -> None:
    if draft not in _TUPLE_ITEMS and isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema.pop("additionalItems")


def _exclusive_flags(schema: dict[str, Any]) -> None:
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool):
            exclusively = schema.pop(exclusive)
            if exclusively and bound in schema:
                schema[exclusive] = schema.pop(bound)


def _nullable(schema: dict[str, Any]) -> None:
    if schema.get("nullable") is not True or "type" not in schema:
        return
    types = schema["type"]
    named = [types] if isinstance(types, str) else list(types)
    schema["type"] = named if "null" in named else [*named, "null"]
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
