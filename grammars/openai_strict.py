"""The rules that OpenAI sets for the schemas of strict tools and response formats.

https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from falsework.grammars.schema_errors import escape_pointer

DEPTH = 10
PROPERTIES = 5000
ENUM_VALUES = 1000

_BARRED = (
    "allOf",
    "not",
    "dependentRequired",
    "dependentSchemas",
    "if",
    "then",
    "else",
    "oneOf",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contains",
    "uniqueItems",
    "prefixItems",
)
_INSIDE = ("anyOf",)
_MAPS = ("properties", "$defs", "definitions")


class StrictFault(NamedTuple):
    """A rule that a schema breaks: the keyword, the JSON pointer to it, what to write instead."""

    keyword: str
    pointer: str
    hint: str


def strict_faults(schema: Any) -> list[StrictFault]:
    """Return the rules that a schema breaks, in the order of the document."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return [StrictFault("type", "/type", "the root must have type object")]
    faults = []
    if "anyOf" in schema:
        faults.append(StrictFault("anyOf", "/anyOf", "the root must not be an anyOf"))
    counts = {"properties": 0, "enum": 0}
    faults += _faults(schema, "", 0, counts)
    if counts["properties"] > PROPERTIES:
        faults.append(StrictFault("properties", "/", f"at most {PROPERTIES} properties in all"))
    if counts["enum"] > ENUM_VALUES:
        faults.append(StrictFault("enum", "/", f"at most {ENUM_VALUES} enum values in all"))
    return faults


def _faults(  # noqa: C901 - one branch a rule
    schema: Any, pointer: str, depth: int, counts: dict[str, int]
) -> Iterator[StrictFault]:
    if not isinstance(schema, Mapping):
        return
    if depth > DEPTH:
        yield StrictFault("properties", pointer or "/", f"at most {DEPTH} levels of nesting")
        return
    for keyword in _BARRED:
        if keyword in schema:
            yield StrictFault(keyword, f"{pointer}/{keyword}", f"'{keyword}' is not supported")
    if "properties" in schema or schema.get("type") == "object":
        yield from _object_faults(schema, pointer)
    counts["properties"] += len(schema.get("properties", ()))
    counts["enum"] += len(schema.get("enum", ()))
    for keyword in _MAPS:
        for name, below in schema.get(keyword, {}).items():
            inside = f"{pointer}/{keyword}/{escape_pointer(name)}"
            yield from _faults(below, inside, depth + (keyword == "properties"), counts)
    if isinstance(schema.get("items"), Mapping):
        yield from _faults(schema["items"], f"{pointer}/items", depth + 1, counts)
    for keyword in _INSIDE:
        for number, below in enumerate(schema.get(keyword, ())):
            yield from _faults(below, f"{pointer}/{keyword}/{number}", depth, counts)


def _object_faults(schema: Mapping[str, Any], pointer: str) -> Iterator[StrictFault]:
    if schema.get("additionalProperties") is not False:
        yield StrictFault(
            "additionalProperties",
            f"{pointer}/additionalProperties",
            "additionalProperties must be false",
        )
    missing = [
        name for name in schema.get("properties", {}) if name not in schema.get("required", ())
    ]
    if missing:
        yield StrictFault(
            "required",
            f"{pointer}/required",
            f"required must name every property; '{missing[0]}' is missing (make it nullable)",
        )
