"""Validation of JSON values: syntax, size, and what a check against a schema may cost."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from falsework.server.tools.errors import ToolCallError
from falsework.server.types import Json

MAX_SCHEMA_COST = 5_000
"""The largest cost of a schema that is told exactly."""

PATTERN_COST = 100
"""The cost of a regular expression, in subschemas."""

DYNAMIC_KEYWORDS = frozenset({"$dynamicRef", "$recursiveRef", "$id", "$anchor"})
"""Keywords whose references aren't followed here: a schema with them counts as costly."""


def parse_json(text: bytes) -> Any:
    """Return the value of a JSON text; raise ValueError where it couldn't be written as JSON again.

    That is the case for lone surrogates, infinite numbers, and hundreds of nested levels.
    """
    value = from_json(text, allow_inf_nan=False)
    json.dumps(value, allow_nan=False)  # a number may be too large for a float
    return value


def schema_cost(schema: Json) -> int:
    """Return the number of subschemas that a check may visit, each reference counted anew.

    Counting ends above MAX_SCHEMA_COST, which recursive schemas reach too.
    """
    cost = 0
    stack: list[Iterator[Any]] = [iter([schema])]
    while stack and cost <= MAX_SCHEMA_COST:
        for part in stack[-1]:
            cost += 1
            if isinstance(part, dict):
                cost += _own_cost(part)
                stack.append(_inner_parts(part, schema))
                break
            if isinstance(part, list):
                stack.append(iter(part))
                break
        else:
            stack.pop()
    return cost


def _own_cost(schema: Json) -> int:
    if DYNAMIC_KEYWORDS & schema.keys():
        return MAX_SCHEMA_COST
    properties = schema.get("patternProperties")
    patterns = len(properties) if isinstance(properties, dict) else 0
    return PATTERN_COST * (patterns + isinstance(schema.get("pattern"), str))


def _inner_parts(schema: Json, root: Json) -> Iterator[Any]:
    """Yield everything inside a schema, values such as those of `enum` too."""
    for key, value in schema.items():
        is_reference = key == "$ref" and isinstance(value, str)
        yield _target(value, root) if is_reference else value


def _target(reference: str, root: Any) -> Any:
    """Return the target of a local reference; None where there is none, which fails to compile."""
    for escaped in reference.removeprefix("#").split("/")[1:]:
        step = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(root, list) and step.isdecimal() and int(step) < len(root):
            root = root[int(step)]
        else:
            root = root.get(step) if isinstance(root, Mapping) else None
    return root


@dataclass(frozen=True)
class JsonSize:
    """The size of a JSON value: nested levels, 1 for a scalar, and values in all."""

    depth: int
    values: int


def check_json(value: Any, max_depth: int) -> JsonSize:
    """Return the size of a tool's result; raise a ToolCallError where it isn't JSON or too deep."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolCallError(
            "bad_response", "The tool's answer isn't valid JSON.", sent=True
        ) from error
    size = json_size(value)
    if size.depth > max_depth:
        raise ToolCallError("bad_response", "The tool's answer is nested too deeply.", sent=True)
    return size


def json_size(value: Any) -> JsonSize:
    """Return the size of a JSON value."""
    depth, values, level = 0, 1, [value]
    while level := [
        inner
        for item in level
        if isinstance(item, dict | list)
        for inner in (item.values() if isinstance(item, dict) else item)
    ]:
        depth += 1
        values += len(level)
    return JsonSize(depth + 1, values)
