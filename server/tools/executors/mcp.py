"""Tools of an MCP server: one task owns the connection, everybody else asks it.

A server that dies cancels the task that opened the connection, so that task does nothing else; it
opens the connection anew, after a pause that grows.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiolimiter
import anyio
import httpx2
import structlog
from anyio.abc import TaskStatus
from mcp import Client, ClientSession, MCPError
from mcp_types import CallToolResult, InputRequiredResult, PaginatedRequestParams, Tool
from pydantic import ValidationError

from falsework.server.observability import telemetry
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext, Json, ToolDescription
from falsework.server.tools.executors.mcp_results import is_connection_lost, result_value, to_fault
from falsework.server.tools.executors.mcp_transports import TransportFactory, notify_on_close

RESTART_BASE = 0.1
RESTART_CAP = 30.0
MAX_PAUSE_WITH_WAITERS = 1.0
STARTS_PER_MINUTE = 6
START_SECONDS = 30.0
CLOSE_SECONDS = 5.0
MAX_PAGES = 100
LIST_SECONDS = 5.0
LIST_TTL = 30.0
"""Seconds after which a call asks for the listing again, to see whether schemas changed."""

DEADLINE_KEY = "falsework/deadlineMs"

log = structlog.get_logger("falsework.tools")


@dataclass(frozen=True)
class _Connection:
    session: ClientSession
    lost: anyio.Event


class McpClient:
    """One connection, supervised."""

    def __init__(  # noqa: PLR0913 - in what servers differ
        self,
        name: str,
        connect: TransportFactory,
        *,
        pin_schemas: bool = True,
        spawned: bool = False,
        patience: float = START_SECONDS,
        label: str | None = None,
    ) -> None:
        """A `spawned` server isn't started at will; `patience` bounds its start, in seconds.

        `label` is what metrics call it where its name isn't the tools file's own.
        """
        self.name = name
        self.label = name if label is None else label
        self.restarts = 0
        self.tools: Mapping[str, Tool] = {}
        self._connect = connect
        self._pin = pin_schemas
        self._patience = patience
        self._starts = aiolimiter.AsyncLimiter(STARTS_PER_MINUTE, 60) if spawned else None
        self._pins: dict[str, str] = {}
        self._connection: _Connection | None = None
        self._proven = False
        self._ready = anyio.Event()
        self._wanted = anyio.Event()
        self._listed_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    async def supervise(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the connection until cancelled."""
        task_status.started()
        failures = 0
        while True:
            if self._starts:
                await self._starts.acquire()
            self._proven = False
            try:
                await self._live()
            except Exception as fault:  # noqa: BLE001 - whatever a server does, it is opened anew
                log.warning(
                    telemetry.LOG_CONNECTION_LOST, server=self.name, error=type(fault).__name__
                )
            failures = 0 if self._proven else failures + 1
            self.restarts += 1
            telemetry.MCP_RESTARTS.labels(self.label).inc()
            await self._pause(min(RESTART_BASE * 2 ** min(failures, 10), RESTART_CAP))

    async def _live(self) -> None:
        """Open the connection, and keep it until it is lost."""
        with anyio.move_on_after(self._patience) as life:
            lost = anyio.Event()
            async with Client(notify_on_close(self._connect(), lost)) as client:
                connection = _Connection(client.session, lost)
                await self._list(connection.session)
                life.deadline = math.inf
                self._connection = connection
                self._ready.set()
                try:
                    await lost.wait()
                finally:
                    self._lose(connection)
                    life.deadline = anyio.current_time() + CLOSE_SECONDS
        if life.cancelled_caught:
            log.warning(telemetry.LOG_CONNECTION_LOST, server=self.name, error="TimeoutError")

    async def _pause(self, seconds: float) -> None:
        """Wait before the next connection, no more than a second where a call waits for it."""
        self._wanted = anyio.Event()
        await anyio.sleep(min(seconds, MAX_PAUSE_WITH_WAITERS))
        if not self._ready.statistics().tasks_waiting:
            with anyio.move_on_after(seconds - MAX_PAUSE_WITH_WAITERS):
                await self._wanted.wait()

    async def list_tools(self, deadline: Deadline) -> Mapping[str, Tool]:
        """Return the server's tools; raise a Fault where it can't be reached in time."""
        await self._connected(deadline)
        return self.tools

    async def call_tool(self, tool: str, arguments: Json, ticket: AttemptContext) -> CallToolResult:
        """Call a tool; raise a Fault."""
        connection = await self._connected(ticket.deadline)
        try:
            if anyio.current_time() - self._listed_at > LIST_TTL:
                await self._list(connection.session)
            self._check(tool)
            with self._timed(telemetry.CALL_TOOL):
                result = await _called(connection.session, tool, arguments, ticket)
        except MCPError as fault:
            if is_connection_lost(fault):
                self._lose(connection)
            raise to_fault(fault, sent=ticket.sent) from fault
        except (ValidationError, RuntimeError) as fault:  # of its schema, where it has one
            message = "The MCP server's answer isn't what the protocol or its schema says."
            raise ToolCallError("bad_response", message, sent=ticket.sent) from fault
        except (httpx2.HTTPError, OSError, anyio.ClosedResourceError) as fault:
            self._lose(connection)
            message = "The connection to the MCP server broke."
            raise ToolCallError("unavailable", message, "crash", sent=ticket.sent) from fault
        self._proven = True
        if isinstance(result, CallToolResult):
            return result
        message = "The tool asks for more than its arguments, which can't be given here."
        raise ToolCallError("precondition_failed", message, sent=True)

    async def _connected(self, deadline: Deadline) -> _Connection:
        self._wanted.set()
        with anyio.move_on_after(max(0.0, deadline.remaining())):
            await self._ready.wait()
        if self._connection is None:
            raise ToolCallError("unavailable", "The MCP server can't be reached.", "connect")
        return self._connection

    def _lose(self, connection: _Connection) -> None:
        """Let nobody use a connection any more, and its owner open another."""
        connection.lost.set()
        if self._connection is connection:
            self._connection = None
            self._ready = anyio.Event()

    @contextmanager
    def _timed(self, method: str) -> Iterator[None]:
        """Measure a request to the server; an error is told by its class alone."""
        began, error = time.monotonic(), ""
        try:
            yield
        except BaseException as fault:
            error = type(fault).__name__
            raise
        finally:
            series = telemetry.MCP_SECONDS.labels(self.label, method, error)
            series.observe(time.monotonic() - began)

    async def _list(self, session: ClientSession) -> None:
        found: dict[str, Tool] = {}
        cursor = None
        for _ in range(MAX_PAGES):
            with self._timed(telemetry.LIST_TOOLS):
                page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            found.update((tool.name, tool) for tool in page.tools)
            cursor = page.next_cursor
            if cursor is None:
                break
        else:
            raise ToolCallError("bad_response", "The MCP server's list of tools has no end.")
        self.tools = found
        self._listed_at = anyio.current_time()
        for name, tool in found.items():
            self._pins.setdefault(name, _digest(tool))

    def _check(self, name: str) -> None:
        tool = self.tools.get(name)
        if tool is None:
            raise ToolCallError("precondition_failed", "The MCP server no longer has this tool.")
        if self._pin and self._pins[name] != _digest(tool):
            raise ToolCallError("precondition_failed", "The MCP server changed this tool's schema.")


async def _called(
    session: ClientSession, tool: str, arguments: Json, ticket: AttemptContext
) -> CallToolResult | InputRequiredResult:
    left = max(0.01, ticket.deadline.remaining())
    meta: Any = {DEADLINE_KEY: int(left * 1000), **ticket.headers}
    ticket.sent = True
    return await session.call_tool(tool, arguments, left, meta=meta, allow_input_required=True)


class McpExecutor:
    """Calls one tool of a server."""

    def __init__(self, server: McpClient, tool: str, cap: int) -> None:
        self.upstream = f"mcp:{server.name}"
        self._server = server
        self._tool = tool
        self._cap = cap

    async def describe(self) -> ToolDescription:
        """Return what the server says of the tool; raise a Fault where it isn't there."""
        tools = await self._server.list_tools(Deadline.after(LIST_SECONDS))
        tool = tools.get(self._tool)
        if tool is None:
            raise ToolCallError("unknown_tool", f"The MCP server has no tool '{self._tool}'.")
        return ToolDescription(tool.description or "", tool.input_schema, tool.output_schema)

    async def execute(self, arguments: Json, ticket: AttemptContext) -> Any:
        """Return the structured content, or the text."""
        return result_value(await self._server.call_tool(self._tool, arguments, ticket), self._cap)


def _digest(tool: Tool) -> str:
    schemas = json.dumps([tool.input_schema, tool.output_schema], sort_keys=True)
    return hashlib.sha256(schemas.encode()).hexdigest()
