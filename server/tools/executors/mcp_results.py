"""Results and errors of MCP servers as values and ToolCallErrors."""

import json
from collections.abc import Mapping
from typing import Any

from mcp import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolResult,
    TextContent,
)

from falsework.server.tools.errors import ErrorType, ToolCallError
from falsework.server.tools.executors.http_errors import STATUS_ERRORS

SERVER_ERROR = CONNECTION_CLOSED
"""The code by which the library says that a connection ended, and servers that they failed."""

CLOSED_MESSAGES = ("Connection closed", "SSE stream")
"""Beginnings of the library's messages where a connection or a response has ended."""

STATUS_MESSAGES = frozenset({"Server returned an error response", "Not Found"})
"""The library's messages where an HTTP response has an error status and no JSON-RPC error."""

JSONRPC_ERRORS: Mapping[int, tuple[ErrorType, str, str]] = {
    SERVER_ERROR: ("upstream_error", "The MCP server failed: ", ""),
    INTERNAL_ERROR: ("upstream_error", "The MCP server failed.", ""),
    INVALID_PARAMS: ("invalid_arguments", "The MCP server refused the arguments: ", ""),
    PARSE_ERROR: ("bad_response", "The MCP server's answer can't be read.", ""),
    REQUEST_TIMEOUT: ("timeout", "The MCP server didn't answer in time.", "timeout"),
}
"""Type, message and reason by JSON-RPC code; the server's own text follows a colon."""

DEFAULT_ERROR: tuple[ErrorType, str, str] = (
    "upstream_rejected",
    "The MCP server refused: ",
    "",
)


def is_connection_lost(error: MCPError) -> bool:
    """Tell whether the connection can't be used any more."""
    is_from_library = error.error.message.startswith(CLOSED_MESSAGES)
    return bool(error.error.code == CONNECTION_CLOSED and is_from_library)


def is_status_error(error: MCPError, status: ToolCallError) -> bool:
    """Tell whether the HTTP status of a response says more than the error in its body."""
    return status.code in STATUS_ERRORS or error.error.message in STATUS_MESSAGES


def to_error(error: MCPError, *, sent: bool) -> ToolCallError:
    """Return the ToolCallError for a JSON-RPC error."""
    code, text = error.error.code, error.error.message
    if is_connection_lost(error):
        message = "The connection to the MCP server broke."
        return ToolCallError("unavailable", message, "crash", sent, code=code)
    kind, message, reason = JSONRPC_ERRORS.get(code, DEFAULT_ERROR)
    if code == PARSE_ERROR and "too_large: " in text:  # from our transport, through the library
        kind, message = "too_large", "The MCP server's answer has more bytes than it may."
    excerpt = text if message.endswith(": ") else ""
    return ToolCallError(kind, message, reason, sent, code=code, excerpt=excerpt)


def result_value(result: CallToolResult, cap: int) -> Any:
    """Return structured content or text of at most `cap` bytes; raise a ToolCallError."""
    text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
    if result.is_error:
        message = "" if text else "The tool failed and didn't say why."
        raise ToolCallError("tool_error", message, sent=True, excerpt=text)
    answer = text if result.structured_content is None else result.structured_content
    try:
        size = len(json.dumps(answer, allow_nan=False, ensure_ascii=False).encode())
    except ValueError as error:
        raise ToolCallError(
            "bad_response", "The tool's answer isn't valid JSON.", sent=True
        ) from error
    if size > cap:
        raise ToolCallError("too_large", f"The tool's answer has more than {cap} bytes.", sent=True)
    return answer
