"""MCP servers that requests name by server_url: connections, and how many of them.

A connection serves equal references of one principal. One in use is never closed for another.
"""

import contextvars
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakSet

import anyio
import httpx2
from anyio.abc import TaskGroup

from falsework.server.observability import telemetry
from falsework.server.tools.config import (
    TOOL_NAME_PATTERN,
    EgressPolicy,
    McpTool,
    RequestMcpServersConfig,
    ToolConfig,
)
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors import (
    MAX_MESSAGE_BYTES,
    EgressTransport,
    McpClient,
    McpExecutor,
    egress_rules,
    http_transport,
)
from falsework.server.tools.resilience import Upstream
from falsework.server.tools.services import ToolServices
from falsework.server.tools.tool import ServerTool
from falsework.server.tools.tool_run import ToolRun

IDLE_SECONDS = 300.0
"""Seconds that a server stays connected after the last request that named it."""

NAMED_SECONDS = 10.0
"""Seconds from naming a server to the first call, in which it counts as in use."""

LIST_SECONDS = 5.0

FORBIDDEN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "last-event-id",
        "origin",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    }
)
"""Headers that say where a request goes and how it is sent, which isn't the client's to decide."""

FORBIDDEN_PREFIXES = (
    ":",
    "mcp-",
    "proxy-",
    "x-envoy-",
    "x-forwarded-",
    "x-http-method",
    "x-original-",
    "x-real-",
    "x-rewrite-",
    "x-host",
)


def forbidden_headers(headers: Iterable[str]) -> list[str]:
    """Return those header names that a request may not give an MCP server."""
    return [
        name
        for name in headers
        if name.strip().lower().replace("_", "-") in FORBIDDEN_HEADERS
        or name.strip().lower().replace("_", "-").startswith(FORBIDDEN_PREFIXES)
    ]


@dataclass(frozen=True)
class McpServerRef:
    """An MCP server as a request names it; `headers` may hold a secret.

    `owner` is the principal of the request: connections aren't shared between principals.
    """

    label: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    owner: str = ""


@dataclass(eq=False)
class _Connection:
    ref: McpServerRef
    server: McpClient
    scope: anyio.CancelScope
    tools: dict[str, ServerTool] = field(default_factory=dict)
    named_at: float = 0.0
    runs: WeakSet[ToolRun] = field(default_factory=WeakSet)

    def is_in_use(self, now: float) -> bool:
        """Whether a request may still call a tool of the server."""
        return (
            now < self.named_at + NAMED_SECONDS
            or any(tool.bulkhead.in_flight for tool in self.tools.values())
            or any(run.deadline.remaining() > 0 for run in self.runs)
        )


class RequestMcpServers:
    """Connects to the servers whose hosts the operator allows, so many of each principal."""

    def __init__(
        self,
        policy: RequestMcpServersConfig,
        owners: TaskGroup,
        services: ToolServices,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        """`owners` runs the connections; `clock` is monotonic, in seconds."""
        self._policy = policy
        self._services = services
        self._owners = owners
        self._clock = clock
        self._connections: dict[McpServerRef, _Connection] = {}

    @property
    def connected(self) -> Collection[McpServerRef]:
        """The servers that are connected, or being connected."""
        return self._connections.keys()

    async def list_tools(self, ref: McpServerRef) -> Mapping[str, ServerTool]:
        """Return a server's tools by qualified name; raise a ToolCallError."""
        if not self._allows(ref.url):
            raise ToolCallError("not_allowed", "This server may not connect to that MCP server.")
        if names := forbidden_headers(name for name, _ in ref.headers):
            raise ToolCallError("not_allowed", f"The header '{names[0][:64]}' can't be given.")
        connection = self._connections.get(ref)
        if connection is None:
            self._make_room(ref.owner)
            connection = self._connections[ref] = self._open(ref)
        connection.named_at = self._clock()
        for name in await connection.server.list_tools(Deadline.after(LIST_SECONDS)):
            await self._add_tool(connection, ref.label, name)
        return connection.tools

    def hold(self, tools: Collection[ServerTool], run: ToolRun) -> None:
        """Keep the servers of these tools connected while a run may call them."""
        for connection in self._connections.values():
            if any(tool in tools for tool in connection.tools.values()):
                connection.runs.add(run)

    async def close_idle_loop(self) -> None:
        """Disconnect servers that no request has named for some time, until cancelled."""
        while True:
            await anyio.sleep(IDLE_SECONDS / 10)
            self.close_idle()

    def close_idle(self) -> None:
        """Disconnect servers that no request has named for some time."""
        now = self._clock()
        for connection in [*self._connections.values()]:
            if now > connection.named_at + IDLE_SECONDS and not connection.is_in_use(now):
                self._close(connection)

    def _make_room(self, owner: str) -> None:
        """Disconnect what isn't in use where a limit is reached; raise a ToolCallError."""
        everything = [*self._connections.values()]
        own = [connection for connection in everything if connection.ref.owner == owner]
        for connections, limit in (
            (own, self._policy.max_connections_per_key),
            (everything, self._policy.max_connections),
        ):
            if len(connections) >= limit:
                idle = [one for one in connections if not one.is_in_use(self._clock())]
                if not idle:
                    message = "Too many MCP servers are in use. Try again later."
                    raise ToolCallError("overloaded", message)
                self._close(min(idle, key=lambda connection: connection.named_at))

    def _close(self, connection: _Connection) -> None:
        self._connections.pop(connection.ref, None)
        connection.scope.cancel()

    def _allows(self, url: str) -> bool:
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL:
            return False
        return parsed.scheme in {"http", "https"} and parsed.host in self._policy.allow_hosts

    def _open(self, ref: McpServerRef) -> _Connection:
        rules = egress_rules(EgressPolicy(deny_private=self._policy.deny_private), [ref.url])

        def client(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                transport=transport,
                headers={"accept-encoding": "identity", **dict(ref.headers)},
                timeout=httpx2.Timeout(None, connect=LIST_SECONDS),
            )

        open_transport = http_transport(
            ref.url, lambda: EgressTransport(rules), client, MAX_MESSAGE_BYTES
        )
        server = McpClient(ref.label, open_transport, label=telemetry.OTHER)
        connection = _Connection(ref, server, anyio.CancelScope())

        async def supervise() -> None:
            with connection.scope:
                await server.supervise()

        # The connection outlives its request, whose id and trace must not stand in its log lines.
        contextvars.Context().run(self._owners.start_soon, supervise)
        return connection

    async def _add_tool(self, connection: _Connection, label: str, name: str) -> None:
        qualified = f"{label}__{name}"
        if qualified in connection.tools or not re.fullmatch(TOOL_NAME_PATTERN, qualified):
            return  # the model couldn't name it
        entry = ToolConfig(name=qualified, mcp=McpTool(server=label, tool=name))
        executor = McpExecutor(connection.server, name, entry.limits.max_response_bytes)
        # A breaker of its own, without a client's text in metrics.
        upstream = Upstream(telemetry.OTHER, entry)
        tool = ServerTool(entry, "write", executor, upstream, {}, self._services, telemetry.OTHER)
        await tool.load_description()
        connection.tools[qualified] = tool
