"""Tools of an MCP server: one task owns the connection, everybody else asks it.

A server that dies cancels the task that opened the connection, so that task does nothing else; it
opens the connection anew, after a pause that grows.
"""

import hashlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import anyio
import httpx2
import structlog
from anyio.abc import TaskStatus
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT, CallToolResult, TextContent, Tool

from falsework.runtime import telemetry
from falsework.runtime.deadlines import Deadline
from falsework.runtime.executors.base import Described, Json, Ticket
from falsework.runtime.faults import Fault, Kind

Connect = Callable[[], AbstractAsyncContextManager[Any]]

RESTART_BASE = 0.1
RESTART_CAP = 30.0
LIST_SECONDS = 5.0
LISTED_FOR = 30.0
"""Seconds after which a call asks for the listing again, to see whether schemas changed."""

DEADLINE_KEY = "falsework/deadlineMs"

log = structlog.get_logger("falsework.tools")


class McpServer:
    """One connection, supervised."""

    def __init__(
        self, name: str, connect: Connect, *, pin_schemas: bool = True, label: str | None = None
    ) -> None:
        """`label` is what metrics call it where its name isn't the tools file's own."""
        self.name = name
        self.label = name if label is None else label
        self.up = False
        self.restarts = 0
        self.tools: Mapping[str, Tool] = {}
        self._connect = connect
        self._pin = pin_schemas
        self._pins: dict[str, str] = {}
        self._client: Client | None = None
        self._ready = anyio.Event()
        self._lost = anyio.Event()
        self._listed_at = 0.0

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the connection until cancelled."""
        task_status.started()
        failures = 0
        while True:
            try:
                async with Client(self._connect()) as client:
                    await self._list(client)
                    failures = 0
                    self._client, self.up = client, True
                    self._ready.set()
                    await self._lost.wait()
            except (MCPError, httpx2.HTTPError, OSError, ExceptionGroup) as fault:
                log.warning(telemetry.LOST_LINE, server=self.name, error=type(fault).__name__)
            self._lose()
            self._lost = anyio.Event()
            self.restarts += 1
            telemetry.MCP_RESTARTS.labels(self.label).inc()
            await anyio.sleep(min(RESTART_BASE * 2**failures, RESTART_CAP))
            failures += 1

    async def listed(self, deadline: Deadline) -> Mapping[str, Tool]:
        """Return the server's tools; raise a Fault where it can't be reached in time."""
        await self._connected(deadline)
        return self.tools

    async def call(self, tool: str, arguments: Json, ticket: Ticket) -> CallToolResult:
        """Call a tool; raise a Fault."""
        client = await self._connected(ticket.deadline)
        left = max(0.01, ticket.deadline.left())
        meta: Any = {DEADLINE_KEY: int(left * 1000), **ticket.headers}
        try:
            if anyio.current_time() - self._listed_at > LISTED_FOR:
                await self._list(client)
            self._check(tool)
            ticket.sent = True
            with self._timed(telemetry.CALL_TOOL):
                return await client.call_tool(tool, arguments, left, meta=meta)
        except MCPError as fault:
            raise self._fault(fault) from fault
        except (httpx2.HTTPError, OSError, anyio.ClosedResourceError, RuntimeError) as fault:
            self._lose()
            message = "The connection to the MCP server broke."
            raise Fault("unavailable", message, "crash", sent=ticket.sent) from fault

    async def _connected(self, deadline: Deadline) -> Client:
        with anyio.move_on_after(max(0.0, deadline.left())):
            await self._ready.wait()
        if self._client is None:
            raise Fault("unavailable", "The MCP server can't be reached.", "connect")
        return self._client

    def _lose(self) -> None:
        """Let nobody use this connection any more, and its owner open another."""
        if self.up:
            self._client, self.up = None, False
            self._ready = anyio.Event()
        self._lost.set()

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

    async def _list(self, client: Client) -> None:
        found: dict[str, Tool] = {}
        cursor = None
        while True:
            with self._timed(telemetry.LIST_TOOLS):
                page = await client.list_tools(cursor=cursor, cache_mode="refresh")
            found.update((tool.name, tool) for tool in page.tools)
            cursor = page.next_cursor
            if cursor is None:
                break
        self.tools = found
        self._listed_at = anyio.current_time()
        for name, tool in found.items():
            self._pins.setdefault(name, _digest(tool))

    def _check(self, name: str) -> None:
        tool = self.tools.get(name)
        if tool is None:
            raise Fault("precondition_failed", "The MCP server no longer has this tool.")
        if self._pin and self._pins[name] != _digest(tool):
            raise Fault("precondition_failed", "The MCP server changed this tool's schema.")

    def _fault(self, fault: MCPError) -> Fault:
        code = fault.error.code
        if code == REQUEST_TIMEOUT:
            return Fault("timeout", "The MCP server didn't answer in time.", "timeout", sent=True)
        if code == CONNECTION_CLOSED:
            self._lose()
            message = "The connection to the MCP server broke."
            return Fault("unavailable", message, "crash", sent=True, code=code)
        message = f"The MCP server refused: {fault.error.message[:500]}"
        return Fault("upstream_rejected", message, sent=True, code=code)


class McpExecutor:
    """Calls one tool of a server."""

    def __init__(self, server: McpServer, tool: str, cap: int) -> None:
        self.upstream = f"mcp:{server.name}"
        self._server = server
        self._tool = tool
        self._cap = cap

    async def describe(self) -> Described:
        """Return what the server says of the tool; raise a Fault where it isn't there."""
        tools = await self._server.listed(Deadline.after(LIST_SECONDS))
        tool = tools.get(self._tool)
        if tool is None:
            raise Fault("unknown_tool", f"The MCP server has no tool '{self._tool}'.")
        return Described(tool.description or "", tool.input_schema, tool.output_schema)

    async def attempt(self, arguments: Json, ticket: Ticket) -> Any:
        """Return the structured content, or the text."""
        result = await self._server.call(self._tool, arguments, ticket)
        text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
        if len(text) > self._cap:
            raise Fault("too_large", f"The tool's answer has more than {self._cap} characters.")
        if result.is_error:
            kind: Kind = "tool_error"
            raise Fault(kind, text or "The tool failed and didn't say why.", sent=True)
        return result.structured_content if result.structured_content is not None else text


def _digest(tool: Tool) -> str:
    schemas = json.dumps([tool.input_schema, tool.output_schema], sort_keys=True)
    return hashlib.sha256(schemas.encode()).hexdigest()


def over_http(url: str, client: Callable[[], httpx2.AsyncClient]) -> Connect:
    """Return how to connect to a server over streamable HTTP."""

    @asynccontextmanager
    async def connect() -> AsyncGenerator[Any]:
        async with client() as opened, streamable_http_client(url, http_client=opened) as streams:
            yield streams

    return connect


def over_stdio(command: tuple[str, ...], environment: Mapping[str, str], folder: str) -> Connect:
    """Return how to start a server and talk to it over its input and output.

    `python` is the interpreter that this server runs on.
    """
    program, *arguments = command
    parameters = StdioServerParameters(
        command=sys.executable if program == "python" else program,
        args=arguments,
        env=dict(environment),
        cwd=folder,
    )
    return lambda: stdio_client(parameters)
