"""All tools of a tools file with their connections, MCP servers and unfinished writes."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from falsework.server.observability import telemetry
from falsework.server.tools.call_metrics import log_unexpected_error
from falsework.server.tools.config import (
    McpServerConfig,
    McpTool,
    ToolConfig,
    ToolPolicy,
    ToolsFile,
    ToolsFileError,
    check_effects,
    upstream_conflicts,
)
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executor_builder import ExecutorBuilder
from falsework.server.tools.executors import EgressRules, McpClient
from falsework.server.tools.request_mcp_servers import RequestMcpServers
from falsework.server.tools.resilience import Upstream
from falsework.server.tools.results import ToolResult
from falsework.server.tools.services import ToolServices
from falsework.server.tools.tool import ServerTool
from falsework.server.tools.tool_run import RecordResult, ToolRun, record_nothing

DESCRIBE_SECONDS = 10
FINISH_SECONDS = 30
"""Seconds that writes which outlive their request get when the server closes."""

NO_TOOLS = ToolsFile()

Clock = Callable[[], float]


class ToolRegistry:
    """The tools that this server runs; made by `open_registry`."""

    def __init__(
        self,
        file: ToolsFile,
        builder: ExecutorBuilder,
        servers: TaskGroup,
        finishing: TaskGroup,
        clock: Clock = time.monotonic,
    ) -> None:
        """`servers` owns MCP connections, `finishing` the writes that outlive their request."""
        self.file = file
        self.tools: dict[str, ServerTool] = {}
        self.upstreams: dict[str, Upstream] = {}
        self.closed = False
        self._builder = builder
        self._services = builder.services
        self._clock = clock
        self._first_of_upstream: dict[str, ToolConfig] = {}
        self.request_mcp_servers = RequestMcpServers(
            file.request_servers, servers, builder.services
        )
        self._servers = servers
        self._finishing = finishing

    @property
    def servers(self) -> Mapping[str, McpClient]:
        """The MCP servers of the file by name."""
        return self._builder.servers

    @property
    def egress(self) -> Mapping[str, EgressRules]:
        """The egress rules by tool, and by MCP server as `mcp:NAME`."""
        return self._builder.egress

    async def load(self) -> None:
        """Add the tools and servers of the file; raise ToolsFileError."""
        for name, server in self.file.servers.items():
            await self.add_server(name, server)
        for entry in self.file.tools:
            self.add_tool(entry)
        if problems := list(check_effects({name: tool.entry for name, tool in self.tools.items()})):
            raise ToolsFileError("\n".join(problems))
        async with anyio.create_task_group() as loading:
            for tool in self.tools.values():
                loading.start_soon(_load_description, tool)

    def exposed(self) -> Iterator[ServerTool]:
        """Yield the tools that a request may name."""
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
        run = ToolRun(
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
        if request_tools:
            self.request_mcp_servers.hold(request_tools.values(), run)
        return run

    async def run_to_completion(self, work: Callable[[], Awaitable[ToolResult]]) -> ToolResult:
        """Run a call to its end, even where its caller is cancelled."""
        results: list[ToolResult] = []
        failures: list[Exception] = [ToolCallError("cancelled", "The server is shutting down.")]
        ended = anyio.Event()

        async def run() -> None:
            try:
                results.append(await work())
            except Exception as error:  # noqa: BLE001 - it fails this call alone
                log_unexpected_error(telemetry.UNFINISHED_LINE, error)
                failures.append(error)
            finally:
                ended.set()

        if not self.healthy:
            raise failures[0]
        self._finishing.start_soon(run)
        await ended.wait()
        if not results:
            raise failures[-1]
        return results[0]

    @property
    def healthy(self) -> bool:
        """Whether calls can be run: the task groups that they need are alive."""
        owners = (self._servers, self._finishing)
        return not self.closed and not any(group.cancel_scope.cancel_called for group in owners)

    async def add_server(self, name: str, entry: McpServerConfig) -> None:
        """Add an MCP server, and the tools that its entry names."""
        server = self._builder.build_server(name, entry)
        await self._servers.start(server.supervise)
        shared = entry.model_dump(include=set(ToolPolicy.model_fields), exclude_unset=True)
        for tool in entry.tools:
            mcp = McpTool(server=name, tool=tool)
            approval: dict[str, Any] = {"approval": {}} if entry.require_approval else {}
            self.add_tool(ToolConfig(**{**approval, **shared}, name=f"{name}__{tool}", mcp=mcp))

    def add_tool(self, entry: ToolConfig) -> None:
        """Add a tool; raise ToolsFileError."""
        executor, effect = self._builder.build(entry)
        first = self._first_of_upstream.setdefault(executor.upstream, entry)
        if problems := list(upstream_conflicts(first, entry, executor.upstream)):
            raise ToolsFileError("\n".join(problems))
        upstream = self.upstreams.get(executor.upstream)
        if upstream is None:
            upstream = self.upstreams[executor.upstream] = Upstream(
                executor.upstream, entry, self._clock
            )
            _export_upstream(upstream)
        tool = ServerTool(
            entry, entry.effect or effect, executor, upstream, self.tools, self._services
        )
        self.tools[entry.name] = tool
        _export_bulkhead(tool)


def _export_upstream(upstream: Upstream) -> None:
    """Export the gauges of an upstream, which have a value before the first call."""
    breaker, budget = upstream.breaker, upstream.budget
    state = telemetry.BREAKER_STATE.labels(upstream.name)
    state.set_function(lambda: telemetry.BREAKER_NUMBERS[breaker.state])
    telemetry.RETRY_BUDGET.labels(upstream.name).set_function(lambda: budget.tokens)


def _export_bulkhead(tool: ServerTool) -> None:
    bulkhead = tool.bulkhead
    telemetry.BULKHEAD_IN_FLIGHT.labels(tool.label).set_function(lambda: bulkhead.in_flight)
    telemetry.BULKHEAD_QUEUED.labels(tool.label).set_function(lambda: bulkhead.queued)


async def _load_description(tool: ServerTool) -> None:
    """Ask the upstream for the description; the first request asks again where that fails."""
    try:
        with anyio.move_on_after(DESCRIBE_SECONDS):
            await tool.load_description()
    except ToolCallError:
        return


@asynccontextmanager
async def open_registry(
    file: ToolsFile = NO_TOOLS, folder: Path = Path(), clock: Clock = time.monotonic
) -> AsyncGenerator[ToolRegistry]:
    """Open the tools of a file; raise ToolsFileError. Closing waits for writes that still run.

    `folder` is the file's: documents, commands and Python functions are looked for there first.
    `clock` is a monotonic clock in seconds.
    """
    failure: ToolsFileError | None = None  # raised from here: a task group would wrap it
    async with AsyncExitStack() as stack, anyio.create_task_group() as servers:
        async with anyio.create_task_group() as finishing:
            services = ToolServices()
            stack.push_async_callback(services.checker.aclose)
            registry = ToolRegistry(
                file, ExecutorBuilder(folder, stack, services), servers, finishing, clock
            )
            try:
                await registry.load()
                servers.start_soon(registry.request_mcp_servers.close_idle_loop)
            except ToolsFileError as error:
                failure = error
            try:
                if failure is None:
                    yield registry
            finally:
                registry.closed = True
            finishing.cancel_scope.deadline = anyio.current_time() + FINISH_SECONDS
        servers.cancel_scope.cancel()
    if failure:
        raise failure
