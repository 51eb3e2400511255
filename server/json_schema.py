"""Validation of JSON values against JSON Schema.

Schemas may come from an upstream, so patterns run on an engine that is linear, or gives up after so
many steps. A worker process imports this and little else, to start quickly; so it lies outside the
folder of tools, whose exports import all of them.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import jsonschema_rs

from falsework.server.types import Json

MAX_ERRORS = 8
MAX_MESSAGE_CHARS = 200

PATTERN_OPTIONS = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=2**20)
"""Linear time, except for lookaround and backreferences, which get so many steps."""


def compile_schema(schema: Json) -> Any:
    """Return a validator; raise ValueError for a schema that is invalid or refers outside itself.

    Nothing is fetched: an upstream may have written the schema.
    """
    return jsonschema_rs.validator_for(schema, offline=True, pattern_options=PATTERN_OPTIONS)


def validation_errors(validator: Any, value: Any) -> tuple[Json, ...]:
    """Return a JSON pointer (RFC 6901) and a message for each violation, the first few of them."""
    if validator is None or validator.is_valid(value):
        return ()
    return tuple(
        {"pointer": json_pointer(error.instance_path), "message": error.message[:MAX_MESSAGE_CHARS]}
        for error in itertools.islice(validator.iter_errors(value), MAX_ERRORS)
    )


def find_violations(schema: Json, value: Any) -> list[Json]:
    """Return the violations of a schema that isn't compiled yet; raise ValueError."""
    return list(validation_errors(compile_schema(schema), value))


def json_pointer(path: Iterable[str | int]) -> str:
    """Return the JSON pointer of a path, its steps escaped as RFC 6901 demands."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
