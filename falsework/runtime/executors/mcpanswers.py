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

from falsework.runtime.faults import Fault, Kind

SAID = 500
"""Characters of a server's own words that the model is told."""

SESSION_OVER = "Session terminated"
"""What the library says where an HTTP server no longer knows our session: it did nothing."""

REFUSALS: Mapping[int, tuple[Kind, str, str]] = {
    CONNECTION_CLOSED: ("unavailable", "The connection to the MCP server broke.", "crash"),
    INTERNAL_ERROR: ("upstream_error", "The MCP server failed.", ""),
    INVALID_PARAMS: ("invalid_arguments", "The MCP server refused the arguments: {said}", ""),
    PARSE_ERROR: ("bad_response", "The MCP server's answer can't be read.", ""),
    REQUEST_TIMEOUT: ("timeout", "The MCP server didn't answer in time.", "timeout"),
}
"""JSON-RPC's codes; the rest is a refusal in the server's own words."""

OTHERWISE: tuple[Kind, str, str] = ("upstream_rejected", "The MCP server refused: {said}", "")


def over(fault: MCPError) -> bool:
    """Tell whether the connection can't be used any more."""
    code, said = fault.error.code, fault.error.message
    return code == CONNECTION_CLOSED or (code == INVALID_REQUEST and said == SESSION_OVER)


def refused(fault: MCPError, *, sent: bool) -> Fault:
    """Return the fault that an error of the protocol is."""
    code, said = fault.error.code, fault.error.message
    if over(fault) and code != CONNECTION_CLOSED:
        return Fault("unavailable", "The MCP server began anew.", "crash", code=code)
    kind, message, reason = REFUSALS.get(code, OTHERWISE)
    if code == PARSE_ERROR and "too_large: " in said:  # our own body's words, through the library
        kind, message = "too_large", "The MCP server's answer has more bytes than it may."
    return Fault(kind, message.format(said=said[:SAID]), reason, sent, code=code)


def value(result: CallToolResult, cap: int) -> Any:
    """Return the structured content, or the text; raise a Fault. `cap` bounds its bytes as JSON."""
    text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
    if result.is_error:
        said = text[:SAID] or "The tool failed and didn't say why."
        raise Fault("tool_error", said, sent=True)
    answer = text if result.structured_content is None else result.structured_content
    try:
        size = len(json.dumps(answer, allow_nan=False, ensure_ascii=False).encode())
    except ValueError as fault:
        raise Fault("bad_response", "The tool's answer isn't valid JSON.", sent=True) from fault
    if size > cap:
        raise Fault("too_large", f"The tool's answer has more than {cap} bytes.", sent=True)
    return answer
