"""The compiled JSON Schemas of one tool: what its arguments and its result have to satisfy."""

from typing import Any

from falsework.server.json_schema import compile_schema, validation_errors
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import canonical_json
from falsework.server.tools.schema_checker import SchemaChecker
from falsework.server.tools.tool_call import ParsedArguments
from falsework.server.tools.validation import (
    MAX_SCHEMA_COST,
    JsonSize,
    parse_json,
    schema_cost,
)
from falsework.server.types import Json

MAX_INLINE_CHECK = 100_000
"""Subschemas times values up to which a result is checked on the event loop: some milliseconds."""


class ToolSchemas:
    """Checks arguments and results; a schema that is None allows everything."""

    def __init__(
        self,
        checker: SchemaChecker,
        parameters: Json | None = None,
        result: Json | None = None,
        *,
        trusted: bool = True,
    ) -> None:
        """Compile the schemas; raise ValueError where one is invalid.

        Parameters that aren't `trusted` to stand in the operator's own files have a limited cost.
        """
        if parameters and not trusted and schema_cost(parameters) > MAX_SCHEMA_COST:
            raise ValueError("the parameters are too complex")
        self._checker = checker
        self._parameters = compile_schema(parameters) if parameters else None
        self._result_schema = result
        self._result_cost = schema_cost(result) if result else 0
        is_cheap = self._result_cost <= MAX_SCHEMA_COST
        self._result = compile_schema(result) if result and is_cheap else None

    def parse_arguments(self, text: str) -> Json:
        """Return the arguments of a call; raise a ToolCallError that lists violations."""
        try:
            arguments: Json = parse_json(text.encode() or b"{}")
        except ValueError as error:
            raise ToolCallError("invalid_arguments", "The arguments aren't valid JSON.") from error
        if violations := validation_errors(self._parameters, arguments):
            message = "The arguments don't satisfy the tool's schema."
            raise ToolCallError("invalid_arguments", message, details=violations)
        return arguments

    def parse(self, text: str) -> ParsedArguments:
        """Return the parsed and checked arguments of a call, or the error that they have."""
        try:
            arguments = self.parse_arguments(text)
        except ToolCallError as error:
            return ParsedArguments({}, text, error)
        return ParsedArguments(arguments, canonical_json(arguments))

    async def check_result(self, value: Any, size: JsonSize) -> None:
        """Raise a ToolCallError where a result doesn't satisfy its schema."""
        if self._result_schema is None:
            return
        if self._result and size.values * self._result_cost <= MAX_INLINE_CHECK:
            violations = validation_errors(self._result, value)
        else:
            violations = await self._checker.violations(self._result_schema, value)
        if violations:
            message = "The tool's answer doesn't satisfy its schema."
            raise ToolCallError("bad_response", message, sent=True, details=violations)
