"""All tools of a tools file, opened: connections, MCP servers, and what outlives a request."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from anyio.abc import TaskGroup

from falsework.server.observability import telemetry
from falsework.server.tools.config.cross_checks import check_effects, upstream_conflicts
from falsework.server.tools.config.loader import ToolsFileError
from falsework.server.tools.config.policies import EffectClass, ToolPolicy
from falsework.server.tools.config.schema import (
    ClientCredentials,
    McpServerConfig,
    McpTool,
    ToolConfig,
    ToolsFile,
)
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.auth import build_auth, read_secret
from falsework.server.tools.executors.base import Executor
from falsework.server.tools.executors.egress import EgressRules, EgressTransport, egress_rules
from falsework.server.tools.executors.http import BODILESS_METHODS, HttpExecutor
from falsework.server.tools.executors.mcp import McpClient, McpExecutor
from falsework.server.tools.executors.mcp_transports import (
    MAX_MESSAGE_BYTES,
    http_transport,
    stdio_transport,
)
from falsework.server.tools.executors.openapi import OpenApiExecutor, load_operation
from falsework.server.tools.executors.python import PythonExecutor
from falsework.server.tools.executors.response_limits import SizeLimitTransport
from falsework.server.tools.request_mcp_servers import RequestMcpServers
from falsework.server.tools.resilience.upstream import Upstream
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool import ServerTool
from falsework.server.tools.tool_run import RecordResult, ToolRun, record_nothing
from falsework.server.tools.unexpected_errors import log_unexpected_error

DESCRIBE_SECONDS = 10
FINISH_SECONDS = 30
"""How long writes that outlive their request may take when the server closes."""

NO_TOOLS = ToolsFile()


class ToolRegistry:
    """The tools that this server runs; made by `opened`."""

    def __init__(
        self,
        file: ToolsFile,
        folder: Path,
        stack: AsyncExitStack,
        servers: TaskGroup,
        finishing: TaskGroup,
    ) -> None:
        """`servers` owns the connections to MCP servers, `finishing` what outlives a request."""
        self.file = file
        self.tools: dict[str, ServerTool] = {}
        self.servers: dict[str, McpClient] = {}
        self.upstreams: dict[str, Upstream] = {}
        self.reach: dict[str, EgressRules] = {}
        """Where tools, and upstreams of several, may connect to: those that connect at all."""
        self.closed = False
        self._folder = folder
        self._stack = stack
        self._first: dict[str, ToolConfig] = {}
        self.guests = RequestMcpServers(file.request_servers, servers)
        self._servers = servers
        self._finishing = finishing

    async def load(self) -> None:
        """Take in what the file has; raise BadToolsFile."""
        for name, server in self.file.servers.items():
            await self.add_server(name, server)
        for entry in self.file.tools:
            self.add_tool(entry)
        if wrong := list(check_effects({name: tool.entry for name, tool in self.tools.items()})):
            raise ToolsFileError("\n".join(wrong))
        async with anyio.create_task_group() as describing:
            for tool in self.tools.values():
                describing.start_soon(_described, tool)

    def exposed(self) -> Iterator[ServerTool]:
        """Yield the tools that a request may ask for."""
        return (tool for tool in self.tools.values() if tool.entry.expose)

    def tools_of_server(self, label: str) -> list[ServerTool]:
        """Return the tools of an MCP server."""
        return [
            tool for tool in self.exposed() if tool.entry.mcp and tool.entry.mcp.server == label
        ]

    def new_run(  # noqa: PLR0913 - what differs between requests
        self,
        run_id: str,
        seconds: float,
        request_tools: Mapping[str, ServerTool] | None = None,
        *,
        principal: str = "",
        record: RecordResult = record_nothing,
        memory: dict[tuple[str, str], ToolResult] | None = None,
        max_tool_calls: int | None = None,
        done_before: frozenset[str] = frozenset(),
    ) -> ToolRun:
        """Return the run of a request that has so many seconds.

        `request_tools` are those of MCP servers that the request brings. `record` stores each
        result, `memory` holds those of an earlier try of the same request.
        """
        policy = self.file.request
        return ToolRun(
            run_id,
            {**self.tools, **(request_tools or {})},
            Deadline.after(min(seconds, policy.deadline)),
            policy,
            self.run_to_completion,
            principal=principal,
            record=record,
            max_tool_calls=max_tool_calls,
            memory={} if memory is None else memory,
            done_before=done_before,
        )

    async def run_to_completion(self, work: Callable[[], Awaitable[ToolResult]]) -> ToolResult:
        """Run something to its end, whoever stops waiting for it."""
        ends: list[ToolResult] = []
        failures: list[Exception] = [ToolCallError("cancelled", "The server is shutting down.")]
        over = anyio.Event()

        async def run() -> None:
            try:
                ends.append(await work())
            except Exception as fault:  # noqa: BLE001 - its waiter's matter, not other calls'
                log_unexpected_error(telemetry.UNFINISHED_LINE, fault)
                failures.append(fault)
            finally:
                over.set()

        if not self.healthy:
            raise failures[0]
        self._finishing.start_soon(run)
        await over.wait()
        if not ends:
            raise failures[-1]
        return ends[0]

    @property
    def healthy(self) -> bool:
        """Whether calls can be run: nothing that they need has ended."""
        owners = (self._servers, self._finishing)
        return not self.closed and not any(one.cancel_scope.cancel_called for one in owners)

    async def add_server(self, name: str, entry: McpServerConfig) -> None:
        """Take an MCP server in, and its listed tools."""
        environment = {key: read_secret(place) for key, place in entry.environment.items()}
        if entry.url:
            url, auth = entry.url, build_auth(entry.auth)
            allowed = egress_rules(entry.egress, [url, *_token_url(entry)])
            most = max(MAX_MESSAGE_BYTES, entry.limits.max_response_bytes)

            def client() -> httpx2.AsyncClient:
                return httpx2.AsyncClient(
                    transport=SizeLimitTransport(EgressTransport(allowed), most, but_events=True),
                    auth=auth,
                    headers={"accept-encoding": "identity"},
                    timeout=httpx2.Timeout(None, connect=entry.connect_timeout),
                )  # fmt: skip

            connect = http_transport(url, client)
            self.reach[f"mcp:{name}"] = allowed
        else:
            connect = stdio_transport(entry.command, environment, str(self._folder))
        self.servers[name] = server = McpClient(
            name, connect, pin_schemas=entry.pin_schemas, spawned=not entry.url
        )
        telemetry.MCP_UP.labels(name).set_function(lambda: float(server.connected))
        telemetry.MCP_RESTARTS.labels(name)  # a series from the start
        await self._servers.start(server.supervise)
        shared = entry.model_dump(include=set(ToolPolicy.model_fields), exclude_unset=True)
        for tool in entry.tools:
            mcp = McpTool(server=name, tool=tool)
            approval: dict[str, Any] = {"approval": {}} if entry.require_approval else {}
            self.add_tool(ToolConfig(**{**approval, **shared}, name=f"{name}__{tool}", mcp=mcp))

    def add_tool(self, entry: ToolConfig) -> None:
        """Take a tool in; raise BadToolsFile."""
        executor, effect = EXECUTOR_FACTORIES[entry.kind](self, entry)
        first = self._first.setdefault(executor.upstream, entry)
        if wrong := list(upstream_conflicts(first, entry, executor.upstream)):
            raise ToolsFileError("\n".join(wrong))
        upstream = self.upstreams.get(executor.upstream)
        if upstream is None:
            upstream = self.upstreams[executor.upstream] = Upstream(executor.upstream, entry)
            _show_upstream(upstream)
        tool = ServerTool(entry, entry.effect or effect, executor, upstream, self.tools)
        self.tools[entry.name] = tool
        _show_bulkhead(tool)

    def _http(self, entry: ToolConfig) -> tuple[Executor, EffectClass]:
        assert entry.http is not None, "the kind says so"
        client = self._client(entry, entry.http.url)
        made = HttpExecutor(entry.http, client, _key_header(entry))
        return made, "read" if entry.http.method in BODILESS_METHODS - {"DELETE"} else "write"

    def _openapi(self, entry: ToolConfig) -> tuple[Executor, EffectClass]:
        assert entry.openapi is not None, "the kind says so"
        found = load_operation(entry.openapi, self._folder)
        client = self._client(entry, found.request.url)
        made = OpenApiExecutor(found, client, _key_header(entry))
        return made, "read" if found.request.method in BODILESS_METHODS - {"DELETE"} else "write"

    def _mcp(self, entry: ToolConfig) -> tuple[Executor, EffectClass]:
        assert entry.mcp is not None, "the kind says so"
        server = self.servers[entry.mcp.server]
        cap = entry.limits.max_response_bytes
        return McpExecutor(server, entry.mcp.tool or entry.name, cap), "write"

    def _python(self, entry: ToolConfig) -> tuple[Executor, EffectClass]:
        assert entry.python is not None, "the kind says so"
        run_in = entry.python.run_location(entry.effect)
        cap = entry.limits.max_response_bytes
        made = PythonExecutor(entry.python, run_in, entry.bulkhead.max_concurrent, cap)
        self._stack.push_async_callback(made.aclose)
        telemetry.LEAKED_THREADS.labels(entry.name).set_function(lambda: float(made.leaked_threads))
        return made, "write"

    def _client(self, entry: ToolConfig, url: str) -> httpx2.AsyncClient:
        allowed = self.reach[entry.name] = egress_rules(entry.egress, [url, *_token_url(entry)])
        client = httpx2.AsyncClient(
            transport=SizeLimitTransport(EgressTransport(allowed), entry.limits.max_response_bytes),
            auth=build_auth(entry.auth),
            timeout=httpx2.Timeout(entry.attempt_timeout, connect=entry.connect_timeout),
        )
        self._stack.push_async_callback(client.aclose)
        return client


ExecutorFactory = Callable[[ToolRegistry, ToolConfig], tuple[Executor, EffectClass]]
EXECUTOR_FACTORIES: Mapping[str, ExecutorFactory] = {
    "http": ToolRegistry._http,  # noqa: SLF001 - the table of this class's own makers
    "mcp": ToolRegistry._mcp,  # noqa: SLF001
    "openapi": ToolRegistry._openapi,  # noqa: SLF001
    "python": ToolRegistry._python,  # noqa: SLF001
}


def _token_url(entry: ToolConfig | McpServerConfig) -> list[str]:
    return [entry.auth.token_url] if isinstance(entry.auth, ClientCredentials) else []


def _key_header(entry: ToolConfig) -> str | None:
    return entry.idempotency.header if entry.idempotency else None


def _show_upstream(upstream: Upstream) -> None:
    """Show what stands now, whether or not anything has happened yet."""
    breaker, budget = upstream.breaker, upstream.budget
    state = telemetry.BREAKER_STATE.labels(upstream.name)
    state.set_function(lambda: telemetry.BREAKER_NUMBERS[breaker.state])
    telemetry.RETRY_BUDGET.labels(upstream.name).set_function(lambda: budget.tokens)


def _show_bulkhead(tool: ServerTool) -> None:
    bulkhead = tool.bulkhead
    telemetry.BULKHEAD_IN_FLIGHT.labels(tool.label).set_function(lambda: bulkhead.in_flight)
    telemetry.BULKHEAD_QUEUED.labels(tool.label).set_function(lambda: bulkhead.queued)


async def _described(tool: ServerTool) -> None:
    """Ask the upstream; where it can't be reached now, the first request asks again."""
    try:
        with anyio.move_on_after(DESCRIBE_SECONDS):
            await tool.load_description()
    except ToolCallError:
        return


@asynccontextmanager
async def open_registry(
    file: ToolsFile = NO_TOOLS, folder: Path = Path()
) -> AsyncGenerator[ToolRegistry]:
    """Open a file's tools; raise BadToolsFile. Closing waits for writes that still run."""
    bad: ToolsFileError | None = None  # raised from here: a task group would wrap it
    async with AsyncExitStack() as stack, anyio.create_task_group() as servers:
        async with anyio.create_task_group() as finishing:
            toolbox = ToolRegistry(file, folder, stack, servers, finishing)
            try:
                await toolbox.load()
            except ToolsFileError as fault:
                bad = fault
            try:
                if bad is None:
                    yield toolbox
            finally:
                toolbox.closed = True
            finishing.cancel_scope.deadline = anyio.current_time() + FINISH_SECONDS
        servers.cancel_scope.cancel()
    if bad:
        raise bad
