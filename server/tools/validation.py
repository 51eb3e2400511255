"""Validation of JSON values: syntax, schema, depth."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import jsonschema_rs
from pydantic_core import from_json

from falsework.server.tools.errors import ToolCallError
from falsework.server.types import Json

MAX_ERRORS = 8
MAX_MESSAGE_CHARS = 200


def parse_json(text: bytes) -> Any:
    """Return the value of a JSON text; raise ValueError where it couldn't be written as JSON again.

    That is the case for lone surrogates, infinite numbers, and hundreds of nested levels.
    """
    value = from_json(text, allow_inf_nan=False)
    json.dumps(value, allow_nan=False)  # a number may be too large for a float
    return value


def compile_schema(schema: Json) -> Any:
    """Return a validator; raise ValueError for a schema that is invalid or refers outside itself.

    Nothing is fetched: an upstream may have written the schema.
    """
    return jsonschema_rs.validator_for(schema, offline=True)


def validation_errors(validator: Any, value: Any) -> tuple[Json, ...]:
    """Return a JSON pointer (RFC 6901) and a message for each violation, the first few of them."""
    if validator is None or validator.is_valid(value):
        return ()
    return tuple(
        {"pointer": json_pointer(error.instance_path), "message": error.message[:MAX_MESSAGE_CHARS]}
        for error in itertools.islice(validator.iter_errors(value), MAX_ERRORS)
    )


def json_pointer(path: Iterable[str | int]) -> str:
    """Return the JSON pointer of a path, its steps escaped as RFC 6901 demands."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def validate_result(value: Any, validator: Any, max_depth: int) -> Any:
    """Return a tool's result; raise a ToolCallError where it isn't JSON or violates its schema."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolCallError(
            "bad_response", "The tool's answer isn't valid JSON.", sent=True
        ) from error
    if json_depth(value) > max_depth:
        raise ToolCallError("bad_response", "The tool's answer is nested too deeply.", sent=True)
    if violations := validation_errors(validator, value):
        message = "The tool's answer doesn't satisfy its schema."
        raise ToolCallError("bad_response", message, sent=True, details=violations)
    return value


def json_depth(value: Any) -> int:
    """Return the number of nested levels of a JSON value; 1 for a scalar."""
    depth, level = 0, [value]
    while level := [
        inner
        for item in level
        if isinstance(item, dict | list)
        for inner in (item.values() if isinstance(item, dict) else item)
    ]:
        depth += 1
    return depth + 1
