"""What rows of the database hold as text."""

import json
from typing import Any

from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult
from falsework.server.types import Json


def dump_result(result: ToolResult) -> str:
    """Return the result of a call as text."""
    error = result.error
    return json.dumps(
        {
            "call_id": result.call_id,
            "canonical": result.canonical,
            "value": result.value,
            "effect": result.effect,
            "attempts": result.attempts,
            "arguments": result.arguments,
            "degraded": result.degraded,
            "partial": result.partial,
            "fallback": result.fallback,
            "seconds": result.seconds,
            "fault": [error.kind, error.message] if error else None,
        }
    )


def load_result(row: Any) -> ToolResult:
    """Return the result that a row of calls holds."""
    fields = json.loads(row.outcome)
    error = fields.pop("fault")
    return ToolResult(tool=row.tool, error=ToolCallError(*error) if error else None, **fields)


def mark_interrupted(body: Json) -> Json:
    """Return what becomes of a response whose server ended before it did."""
    message = "The server ended before the response did; what was done is in the output."
    output = [
        {**item, "status": "incomplete"} if item.get("status") == "in_progress" else item
        for item in body["output"]
    ]
    error = {"code": "server_error", "message": message}
    return {**body, "status": "failed", "error": error, "output": output}
