"""MCP servers that requests bring themselves: connected once for equal ones, and not for ever."""

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
from falsework.server.tools.tool import ServerTool

MAX_CONNECTIONS = 32
IDLE_SECONDS = 300.0
"""How long a server stays connected that no request names; longer than requests take."""

LIST_SECONDS = 5.0


@dataclass(frozen=True)
class McpServerRef:
    """How a request names an MCP server; `headers` may hold its secret."""

    label: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass
class _Guest:
    server: McpClient
    scope: anyio.CancelScope
    tools: dict[str, ServerTool] = field(default_factory=dict)


class _Kept(cachetools.LRUCache[McpServerRef, _Guest]):
    """The guests that came last; whoever has to leave is disconnected."""

    def popitem(self) -> tuple[McpServerRef, _Guest]:
        """Let the one go that was longest not asked for."""
        invitation, guest = super().popitem()
        guest.scope.cancel()
        return invitation, guest


class RequestMcpServers:
    """Connects to them, where the operator allows their hosts."""

    def __init__(
        self, policy: RequestMcpServersConfig, owners: TaskGroup, idle: float = IDLE_SECONDS
    ) -> None:
        self._policy = policy
        self._idle = idle
        self._owners = owners
        self._kept = _Kept(MAX_CONNECTIONS)

    async def list_tools(self, invitation: McpServerRef) -> Mapping[str, ServerTool]:
        """Return a server's tools by their names here; raise a Fault."""
        if not self._allows(invitation.url):
            raise ToolCallError("not_allowed", "This server may not connect to that MCP server.")
        guest = self._kept.get(invitation)
        if guest is None:
            guest = self._kept[invitation] = self._welcomed(invitation)
        guest.scope.deadline = anyio.current_time() + self._idle
        for name in await guest.server.list_tools(Deadline.after(LIST_SECONDS)):
            await self._add(guest, invitation.label, name)
        return guest.tools

    def _allows(self, url: str) -> bool:
        try:
            named = httpx2.URL(url)
        except httpx2.InvalidURL:
            return False
        return named.scheme in {"http", "https"} and named.host in self._policy.allow_hosts

    def _welcomed(self, invitation: McpServerRef) -> _Guest:
        allowed = egress_rules(
            EgressPolicy(deny_private=self._policy.deny_private), [invitation.url]
        )

        def client() -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                transport=SizeLimitTransport(
                    EgressTransport(allowed), MAX_MESSAGE_BYTES, but_events=True
                ),
                headers={"accept-encoding": "identity", **dict(invitation.headers)},
                timeout=httpx2.Timeout(None, connect=LIST_SECONDS),
            )

        guest = _Guest(
            McpClient(
                invitation.label, http_transport(invitation.url, client), label=telemetry.OTHER
            ),
            anyio.CancelScope(),
        )

        async def own() -> None:
            with guest.scope:
                await guest.server.supervise()
            if self._kept.get(invitation) is guest:
                del self._kept[invitation]

        # It outlives the request that brought it, whose id and trace its lines must not bear.
        contextvars.Context().run(self._owners.start_soon, own)
        return guest

    async def _add(self, guest: _Guest, label: str, name: str) -> None:
        full = f"{label}__{name}"
        if full in guest.tools or not re.fullmatch(TOOL_NAME_PATTERN, full):
            return  # what can't be named can't be called
        entry = ToolConfig(name=full, mcp=McpTool(server=label, tool=name))
        executor = McpExecutor(guest.server, name, entry.limits.max_response_bytes)
        upstream = Upstream(telemetry.OTHER, entry)  # its own breaker, but no name of a client's
        tool = ServerTool(entry, "write", executor, upstream, {}, label=telemetry.OTHER)
        await tool.load_description()
        guest.tools[full] = tool
