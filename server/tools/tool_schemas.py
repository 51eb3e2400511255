"""The compiled JSON Schemas of one tool: what its arguments and its result have to satisfy."""

from typing import Any

from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import canonical_json
from falsework.server.tools.tool_call import ParsedArguments
from falsework.server.tools.validation import (
    compile_schema,
    parse_json,
    validate_result,
    validation_errors,
)
from falsework.server.types import Json


class ToolSchemas:
    """Checks arguments and results; a schema that is None allows everything."""

    def __init__(self, parameters: Json | None = None, result: Json | None = None) -> None:
        """Compile the schemas; raise ValueError where one is invalid."""
        self._parameters = compile_schema(parameters) if parameters else None
        self._result = compile_schema(result) if result else None

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

    def check_result(self, value: Any, max_depth: int) -> Any:
        """Return a result that can be passed on; raise a ToolCallError."""
        return validate_result(value, self._result, max_depth)
