"""What rows of the database hold as text, and what that means."""

import json
from typing import Any

from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult

Json = dict[str, Any]


def dump_result(outcome: ToolResult, canonical: str) -> str:
    """Return an outcome as it is kept, with the arguments that equal calls share."""
    fault = outcome.error
    return json.dumps(
        {
            "call_id": outcome.call_id, "canonical": canonical,
            "value": outcome.value, "effect": outcome.effect, "attempts": outcome.attempts,
            "arguments": outcome.arguments, "degraded": outcome.degraded,
            "partial": outcome.partial, "fallback": outcome.fallback, "seconds": outcome.seconds,
            "fault": [fault.kind, fault.message] if fault else None,
        }
    )  # fmt: skip


def mark_interrupted(body: Json) -> Json:
    """Return what becomes of a response whose server ended before it did."""
    message = "The server ended before the response did; what was done is in the output."
    error = {"code": "server_error", "message": message}
    output = [{**item, "status": "incomplete"} if item.get("status") == "in_progress" else item
              for item in body["output"]]  # fmt: skip
    return {**body, "status": "failed", "error": error, "output": output}


def load_result(row: Any) -> tuple[tuple[str, str], ToolResult]:
    """Return the call of a row: its tool and canonical arguments, and its outcome."""
    told = {"call_id": row.call_id, "canonical": row.canonical, **json.loads(row.outcome)}
    identity = (row.tool, told.pop("canonical"))
    fault = ToolCallError(*told.pop("fault")) if told["fault"] else told.pop("fault")
    return identity, ToolResult(tool=row.tool, error=fault, **told)
