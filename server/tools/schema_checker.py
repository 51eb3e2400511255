"""Checks values against schemas, the costly ones in a process that can be killed.

A schema with nested alternatives can take time that doubles with each level, and the library checks
without letting other threads run.
"""

import json
from typing import Any

import anyio

from falsework.server.json_schema import find_violations
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors import AttemptContext, ProcessPool
from falsework.server.types import Json

CHECK_SECONDS = 1.0
"""How long one check in a process may take."""

MAX_PROCESSES = 2
MAX_VIOLATIONS_BYTES = 2**16


class SchemaChecker:
    """Owns the processes of costly checks."""

    def __init__(self) -> None:
        self._slots = anyio.CapacityLimiter(MAX_PROCESSES)
        self._pool = ProcessPool(MAX_PROCESSES, MAX_VIOLATIONS_BYTES)

    async def violations(self, schema: Json, value: Any) -> tuple[Json, ...]:
        """Return the violations, found in a process; raise a ToolCallError."""
        name = f"{find_violations.__module__}:{find_violations.__name__}"
        async with self._slots:
            with anyio.move_on_after(CHECK_SECONDS):
                attempt = AttemptContext(Deadline.after(CHECK_SECONDS), "check")
                reply = json.loads(
                    await self._pool.call(name, {"schema": schema, "value": value}, attempt)
                )
                if "value" in reply:
                    return tuple(reply["value"])
                message = "The tool's answer can't be checked: its schema isn't valid."
                raise ToolCallError("bad_response", message, sent=True)
        message = "The tool's answer couldn't be checked against its schema in time."
        raise ToolCallError("bad_response", message, sent=True)

    async def aclose(self) -> None:
        """Kill the processes."""
        await self._pool.aclose()
