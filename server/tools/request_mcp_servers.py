"""MCP servers that requests name by server_url: one connection per URL, headers and label."""

import contextvars
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio
import cachetools
import httpx2
from anyio.abc import TaskGroup

from falsework.server.observability import telemetry
from falsework.server.tools.config.policies import EgressPolicy
from falsework.server.tools.config.schema import (
    TOOL_NAME_PATTERN,
    McpTool,
    RequestMcpServersConfig,
    ToolConfig,
)
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.egress import EgressTransport, egress_rules
from falsework.server.tools.executors.mcp import McpClient, McpExecutor
from falsework.server.tools.executors.mcp_transports import MAX_MESSAGE_BYTES, http_transport
from falsework.server.tools.executors.response_limits import SizeLimitTransport
from falsework.server.tools.resilience.upstream import Upstream
from falsework.server.tools.services import ToolServices
from falsework.server.tools.tool import ServerTool

MAX_CONNECTIONS = 32
IDLE_SECONDS = 300.0
"""Seconds that a server stays connected after the last request that named it."""

LIST_SECONDS = 5.0


@dataclass(frozen=True)
class McpServerRef:
    """An MCP server as a request names it; `headers` may hold a secret."""

    label: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass
class _Connection:
    server: McpClient
    scope: anyio.CancelScope
    tools: dict[str, ServerTool] = field(default_factory=dict)


class _ConnectionCache(cachetools.LRUCache[McpServerRef, _Connection]):
    """The connections used last; the one that is dropped is closed."""

    def popitem(self) -> tuple[McpServerRef, _Connection]:
        """Drop and close the least recently used connection."""
        ref, connection = super().popitem()
        connection.scope.cancel()
        return ref, connection


class RequestMcpServers:
    """Connects to the servers whose hosts the operator allows."""

    def __init__(
        self,
        policy: RequestMcpServersConfig,
        owners: TaskGroup,
        services: ToolServices,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self._policy = policy
        self._services = services
        self._idle = idle
        self._owners = owners
        self._connections = _ConnectionCache(MAX_CONNECTIONS)

    async def list_tools(self, ref: McpServerRef) -> Mapping[str, ServerTool]:
        """Return a server's tools by qualified name; raise a ToolCallError."""
        if not self._allows(ref.url):
            raise ToolCallError("not_allowed", "This server may not connect to that MCP server.")
        connection = self._connections.get(ref)
        if connection is None:
            connection = self._connections[ref] = self._open(ref)
        connection.scope.deadline = anyio.current_time() + self._idle
        for name in await connection.server.list_tools(Deadline.after(LIST_SECONDS)):
            await self._add_tool(connection, ref.label, name)
        return connection.tools

    def _allows(self, url: str) -> bool:
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL:
            return False
        return parsed.scheme in {"http", "https"} and parsed.host in self._policy.allow_hosts

    def _open(self, ref: McpServerRef) -> _Connection:
        rules = egress_rules(EgressPolicy(deny_private=self._policy.deny_private), [ref.url])

        def client() -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                transport=SizeLimitTransport(
                    EgressTransport(rules), MAX_MESSAGE_BYTES, exempt_events=True
                ),
                headers={"accept-encoding": "identity", **dict(ref.headers)},
                timeout=httpx2.Timeout(None, connect=LIST_SECONDS),
            )

        connection = _Connection(
            McpClient(ref.label, http_transport(ref.url, client), label=telemetry.OTHER),
            anyio.CancelScope(),
        )

        async def supervise() -> None:
            with connection.scope:
                await connection.server.supervise()
            if self._connections.get(ref) is connection:
                del self._connections[ref]

        # The connection outlives its request, whose id and trace must not stand in its log lines.
        contextvars.Context().run(self._owners.start_soon, supervise)
        return connection

    async def _add_tool(self, connection: _Connection, label: str, name: str) -> None:
        qualified = f"{label}__{name}"
        if qualified in connection.tools or not re.fullmatch(TOOL_NAME_PATTERN, qualified):
            return  # the model couldn't name it
        entry = ToolConfig(name=qualified, mcp=McpTool(server=label, tool=name))
        executor = McpExecutor(connection.server, name, entry.limits.max_response_bytes)
        upstream = Upstream(
            telemetry.OTHER, entry
        )  # a breaker of its own, without a client's text in metrics
        tool = ServerTool(entry, "write", executor, upstream, {}, self._services, telemetry.OTHER)
        await tool.load_description()
        connection.tools[qualified] = tool
