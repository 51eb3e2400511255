"""What an MCP server's answers mean to us: a value, or a fault of the closed list."""

import json
from collections.abc import Mapping
from typing import Any

from mcp import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolResult,
    TextContent,
)

from falsework.server.tools.errors import ErrorType, ToolCallError

EXCERPT_CHARS = 500
"""Characters of a server's own words that the model is told."""

SESSION_TERMINATED = "Session terminated"
"""What the library says where an HTTP server no longer knows our session: it did nothing."""

JSONRPC_ERRORS: Mapping[int, tuple[ErrorType, str, str]] = {
    CONNECTION_CLOSED: ("unavailable", "The connection to the MCP server broke.", "crash"),
    INTERNAL_ERROR: ("upstream_error", "The MCP server failed.", ""),
    INVALID_PARAMS: ("invalid_arguments", "The MCP server refused the arguments: {said}", ""),
    PARSE_ERROR: ("bad_response", "The MCP server's answer can't be read.", ""),
    REQUEST_TIMEOUT: ("timeout", "The MCP server didn't answer in time.", "timeout"),
}
"""JSON-RPC's codes; the rest is a refusal in the server's own words."""

DEFAULT_ERROR: tuple[ErrorType, str, str] = (
    "upstream_rejected",
    "The MCP server refused: {said}",
    "",
)


def is_connection_lost(fault: MCPError) -> bool:
    """Tell whether the connection can't be used any more."""
    code, said = fault.error.code, fault.error.message
    return code == CONNECTION_CLOSED or (code == INVALID_REQUEST and said == SESSION_TERMINATED)


def to_fault(fault: MCPError, *, sent: bool) -> ToolCallError:
    """Return the fault that an error of the protocol is."""
    code, said = fault.error.code, fault.error.message
    if is_connection_lost(fault) and code != CONNECTION_CLOSED:
        return ToolCallError("unavailable", "The MCP server began anew.", "crash", code=code)
    kind, message, reason = JSONRPC_ERRORS.get(code, DEFAULT_ERROR)
    if code == PARSE_ERROR and "too_large: " in said:  # our own body's words, through the library
        kind, message = "too_large", "The MCP server's answer has more bytes than it may."
    return ToolCallError(kind, message.format(said=said[:EXCERPT_CHARS]), reason, sent, code=code)


def result_value(result: CallToolResult, cap: int) -> Any:
    """Return the structured content, or the text; raise a Fault. `cap` bounds its bytes as JSON."""
    text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
    if result.is_error:
        said = text[:EXCERPT_CHARS] or "The tool failed and didn't say why."
        raise ToolCallError("tool_error", said, sent=True)
    answer = text if result.structured_content is None else result.structured_content
    try:
        size = len(json.dumps(answer, allow_nan=False, ensure_ascii=False).encode())
    except ValueError as fault:
        raise ToolCallError(
            "bad_response", "The tool's answer isn't valid JSON.", sent=True
        ) from fault
    if size > cap:
        raise ToolCallError("too_large", f"The tool's answer has more than {cap} bytes.", sent=True)
    return answer
