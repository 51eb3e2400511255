"""What is wrong with a JSON value: against its schema, and in its depth."""

import json
from typing import Any

import jsonschema_rs
from pydantic_core import from_json

from falsework.server.tools.errors import ToolCallError

Json = dict[str, Any]

MAX_ERRORS = 8


def parse_json(text: bytes) -> Any:
    """Return what a JSON text says; raise ValueError for all that another JSON text can't say.

    That is half characters, numbers without end, and what is nested hundreds deep.
    """
    value = from_json(text, allow_inf_nan=False)
    json.dumps(value, allow_nan=False)  # a number may be too large for a float
    return value


def compile_schema(schema: Json) -> Any:
    """Return what judges values by a schema; raise ValueError where it isn't a whole one.

    What a reference names outside the schema isn't fetched: an upstream may have written it.
    """
    return jsonschema_rs.validator_for(schema, offline=True)


def validation_errors(validator: Any, value: Any) -> tuple[Json, ...]:
    """Return a pointer and a sentence for each fault."""
    if validator is None or validator.is_valid(value):
        return ()
    errors = list(validator.iter_errors(value))[:MAX_ERRORS]
    return tuple(
        {"pointer": "".join(f"/{step}" for step in error.instance_path),
         "message": error.message[:200]}
        for error in errors
    )  # fmt: skip


def validate_result(value: Any, validator: Any, most_deep: int) -> Any:
    """Return what a tool answered; raise a Fault where it can't be passed on."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as fault:
        raise ToolCallError(
            "bad_response", "The tool's answer isn't valid JSON.", sent=True
        ) from fault
    if json_depth(value) > most_deep:
        raise ToolCallError("bad_response", "The tool's answer is nested too deeply.", sent=True)
    if wrong := validation_errors(validator, value):
        message = "The tool's answer doesn't satisfy its schema."
        raise ToolCallError("bad_response", message, sent=True, details=wrong)
    return value


def json_depth(value: Any) -> int:
    """Return how deeply a JSON value is nested; 1 where it isn't."""
    deepest, level = 0, [value]
    while level := [
        inner
        for each in level
        if isinstance(each, dict | list)
        for inner in (each.values() if isinstance(each, dict) else each)
    ]:
        deepest += 1
    return deepest + 1
