"""Tools of an MCP server: one task owns the connection, calls in other tasks use it.

A server that dies cancels the task that opened the connection, so that task does nothing else; it
reconnects after a pause that grows.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import aiolimiter
import anyio
import httpx2
import structlog
from anyio.abc import TaskStatus
from mcp import Client, ClientSession, MCPError
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    PaginatedRequestParams,
    Tool,
    ToolListChangedNotification,
)
from pydantic import TypeAdapter, ValidationError

from falsework.server.observability import telemetry
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext
from falsework.server.tools.executors.mcp_link import (
    PENDING_CALL,
    McpLink,
    PendingCall,
    TransportFactory,
    notify_on_close,
)
from falsework.server.tools.executors.mcp_results import (
    is_connection_lost,
    is_status_error,
    to_error,
)
from falsework.server.types import Json

RESTART_BASE = 0.1
RESTART_CAP = 30.0
MAX_PAUSE_WITH_WAITERS = 1.0
STARTS_PER_MINUTE = 6
START_SECONDS = 30.0
CLOSE_SECONDS = 5.0
MAX_PAGES = 100
LIST_SECONDS = 5.0
LIST_TTL = 30.0
"""Seconds after which a call lists the tools again, to see whether schemas changed."""

DEADLINE_KEY = "falsework/deadlineMs"

_CALL_RESULT: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(
    CallToolResult | InputRequiredResult
)

log = structlog.get_logger("falsework.tools")


@dataclass(frozen=True)
class _Connection:
    session: ClientSession
    link: McpLink


class McpClient:
    """The supervised connection to one server."""

    def __init__(  # noqa: PLR0913 - in what servers differ
        self,
        name: str,
        open_transport: TransportFactory,
        *,
        pin_schemas: bool = True,
        spawned: bool = False,
        start_timeout: float = START_SECONDS,
        label: str | None = None,
    ) -> None:
        """Starts of a `spawned` server are rate-limited, each to `start_timeout` seconds.

        `label` is used in metrics instead of a name that isn't the tools file's.
        """
        self.name = name
        self.label = name if label is None else label
        self.restarts = 0
        self.tools: Mapping[str, Tool] = {}
        self._open_transport = open_transport
        self._pin_schemas = pin_schemas
        self._start_timeout = start_timeout
        self._start_limiter = aiolimiter.AsyncLimiter(STARTS_PER_MINUTE, 60) if spawned else None
        self._pinned: dict[str, str] = {}
        self._connection: _Connection | None = None
        self._has_answered = False
        self._ready = anyio.Event()
        self._requested = anyio.Event()
        self._listed_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    async def supervise(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Hold the connection, and reconnect, until cancelled."""
        task_status.started()
        failures = 0
        while True:
            if self._start_limiter:
                await self._start_limiter.acquire()
            self._has_answered = False
            try:
                await self._hold_connection()
            except Exception as error:  # noqa: BLE001 - whatever a server does, reconnect
                log.warning(
                    telemetry.LOG_CONNECTION_LOST, server=self.name, error=type(error).__name__
                )
            failures = 0 if self._has_answered else failures + 1
            self.restarts += 1
            telemetry.MCP_RESTARTS.labels(self.label).inc()
            await self._restart_pause(min(RESTART_BASE * 2 ** min(failures, 10), RESTART_CAP))

    async def _hold_connection(self) -> None:
        """Open the connection, and hold it until it is lost."""
        with anyio.move_on_after(self._start_timeout) as scope:
            link = McpLink()
            transport = notify_on_close(self._open_transport(link), link)
            async with Client(transport, message_handler=self._on_message) as client:
                connection = _Connection(client.session, link)
                await self._refresh_tools(connection.session)
                scope.deadline = math.inf
                self._connection = connection
                self._ready.set()
                try:
                    await self._watch(client, link)
                finally:
                    self._drop(connection)
                    scope.deadline = anyio.current_time() + CLOSE_SECONDS
        if scope.cancelled_caught or link.failure:
            error_type = link.failure.kind if link.failure else "TimeoutError"
            log.warning(telemetry.LOG_CONNECTION_LOST, server=self.name, error=error_type)

    async def _watch(self, client: Client, link: McpLink) -> None:
        """Wait for the end of a connection; meanwhile note that the list of tools has changed."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, client)
            await link.lost.wait()
            tasks.cancel_scope.cancel()

    async def _listen(self, client: Client) -> None:
        with suppress(ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError):
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._listed_at = -math.inf

    async def _on_message(self, message: object) -> None:
        """Note a notification of protocol revisions before subscriptions."""
        if isinstance(message, ToolListChangedNotification):
            self._listed_at = -math.inf

    async def _restart_pause(self, seconds: float) -> None:
        """Wait before reconnecting, at most a second where a call waits."""
        self._requested = anyio.Event()
        await anyio.sleep(min(seconds, MAX_PAUSE_WITH_WAITERS))
        if not self._ready.statistics().tasks_waiting:
            with anyio.move_on_after(seconds - MAX_PAUSE_WITH_WAITERS):
                await self._requested.wait()

    async def list_tools(self, deadline: Deadline) -> Mapping[str, Tool]:
        """Return the server's tools by name; raise a ToolCallError if it is out of reach."""
        await self._wait_connected(deadline)
        return self.tools

    async def call_tool(
        self, tool: str, arguments: Json, attempt: AttemptContext
    ) -> CallToolResult:
        """Call a tool; raise a ToolCallError."""
        connection = await self._wait_connected(attempt.deadline)
        call = PendingCall(attempt.deadline)
        PENDING_CALL.set(call)
        try:
            if anyio.current_time() - self._listed_at > LIST_TTL:
                await self._refresh_tools(connection.session)
            self._check_tool(tool)
            with self._measure(telemetry.CALL_TOOL):
                result = await _send_call(connection.session, tool, arguments, attempt)
        except MCPError as error:
            raise self._call_error(error, call, connection, attempt) from error
        except ValidationError as error:
            message = "The MCP server's answer isn't what the protocol says."
            raise ToolCallError("bad_response", message, sent=attempt.sent) from error
        except (httpx2.HTTPError, OSError, anyio.ClosedResourceError) as error:
            self._drop(connection)
            message = "The connection to the MCP server broke."
            raise ToolCallError("unavailable", message, "crash", sent=attempt.sent) from error
        self._has_answered = True
        if isinstance(result, CallToolResult):
            return result
        message = "The tool asks for more than its arguments, which can't be given here."
        raise ToolCallError("precondition_failed", message, sent=True)

    def _call_error(
        self, error: MCPError, call: PendingCall, connection: _Connection, attempt: AttemptContext
    ) -> ToolCallError:
        """Return the error of a call; the HTTP status and the end of the connection know more."""
        if call.session_lost:
            attempt.sent = False
            self._drop(connection)
            return ToolCallError("unavailable", "The MCP server began anew.", "crash")
        if connection.link.failure:
            return replace(connection.link.failure)
        if is_connection_lost(error):
            self._drop(connection)
        elif call.error and is_status_error(error, call.error):
            return call.error
        return to_error(error, sent=attempt.sent)

    async def _wait_connected(self, deadline: Deadline) -> _Connection:
        self._requested.set()
        with anyio.move_on_after(max(0.0, deadline.remaining())):
            await self._ready.wait()
        if self._connection is None:
            raise ToolCallError("unavailable", "The MCP server can't be reached.", "connect")
        return self._connection

    def _drop(self, connection: _Connection) -> None:
        """Give a connection up, so that its owner opens another."""
        connection.link.lost.set()
        if self._connection is connection:
            self._connection = None
            self._ready = anyio.Event()

    @contextmanager
    def _measure(self, method: str) -> Iterator[None]:
        """Record the duration of a request to the server, and the class of its exception."""
        began, error_type = time.monotonic(), ""
        try:
            yield
        except BaseException as error:
            error_type = type(error).__name__
            raise
        finally:
            series = telemetry.MCP_SECONDS.labels(self.label, method, error_type)
            series.observe(time.monotonic() - began)

    async def _refresh_tools(self, session: ClientSession) -> None:
        tools: dict[str, Tool] = {}
        cursor = None
        for _ in range(MAX_PAGES):
            with self._measure(telemetry.LIST_TOOLS):
                page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            tools.update((tool.name, tool) for tool in page.tools)
            cursor = page.next_cursor
            if cursor is None:
                break
        else:
            raise ToolCallError("bad_response", "The MCP server's list of tools has no end.")
        self.tools = tools
        self._listed_at = anyio.current_time()
        for name, tool in tools.items():
            self._pinned.setdefault(name, _digest(tool))

    def _check_tool(self, name: str) -> None:
        tool = self.tools.get(name)
        if tool is None:
            raise ToolCallError("precondition_failed", "The MCP server no longer has this tool.")
        if self._pin_schemas and self._pinned[name] != _digest(tool):
            raise ToolCallError("precondition_failed", "The MCP server changed this tool's schema.")


async def _send_call(
    session: ClientSession, tool: str, arguments: Json, attempt: AttemptContext
) -> CallToolResult | InputRequiredResult:
    """Send a call; `ClientSession.call_tool` would check the result's schema on the event loop."""
    remaining = max(0.01, attempt.deadline.remaining())
    meta: Any = {DEADLINE_KEY: int(remaining * 1000), **attempt.headers}
    params = CallToolRequestParams(name=tool, arguments=arguments, _meta=meta)
    attempt.sent = True
    return await session.send_request(CallToolRequest(params=params), _CALL_RESULT, remaining)


def _digest(tool: Tool) -> str:
    schemas = json.dumps([tool.input_schema, tool.output_schema], sort_keys=True)
    return hashlib.sha256(schemas.encode()).hexdigest()
