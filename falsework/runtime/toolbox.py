"""All tools of a tools file, opened: connections, MCP servers, and what outlives a request."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from anyio.abc import TaskGroup

from falsework.runtime import telemetry
from falsework.runtime.contradictions import disagreements, misuses
from falsework.runtime.deadlines import Deadline
from falsework.runtime.entries import ClientCredentials, Mcp, ServerEntry, ToolEntry, ToolsFile
from falsework.runtime.executors.base import Executor
from falsework.runtime.executors.bodies import CappedTransport
from falsework.runtime.executors.credentials import credentials, secret
from falsework.runtime.executors.egress import CheckedTransport, Rules, rules
from falsework.runtime.executors.http import IN_QUERY, HttpExecutor
from falsework.runtime.executors.mcp import McpExecutor, McpServer
from falsework.runtime.executors.mcpconnections import MOST_BYTES, over_http, over_stdio
from falsework.runtime.executors.openapi import OpenApiExecutor, operation
from falsework.runtime.executors.python import PythonExecutor
from falsework.runtime.faults import Fault
from falsework.runtime.guests import Guests
from falsework.runtime.outcomes import Outcome
from falsework.runtime.policies import EffectClass, ToolPolicy
from falsework.runtime.runs import Run
from falsework.runtime.tools import ServerTool
from falsework.runtime.toolsfile import BadToolsFile
from falsework.runtime.unforeseen import log_unforeseen
from falsework.runtime.upstreams import Upstream

DESCRIBE_SECONDS = 10
FINISH_SECONDS = 30
"""How long writes that outlive their request may take when the server closes."""

NO_TOOLS = ToolsFile()


class Toolbox:
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
        self.servers: dict[str, McpServer] = {}
        self.upstreams: dict[str, Upstream] = {}
        self.reach: dict[str, Rules] = {}
        """Where tools, and upstreams of several, may connect to: those that connect at all."""
        self.closed = False
        self._folder = folder
        self._stack = stack
        self._first: dict[str, ToolEntry] = {}
        self.guests = Guests(file.request_servers, servers)
        self._servers = servers
        self._finishing = finishing

    async def fill(self) -> None:
        """Take in what the file has; raise BadToolsFile."""
        for name, server in self.file.servers.items():
            await self.add_server(name, server)
        for entry in self.file.tools:
            self.add_tool(entry)
        if wrong := list(misuses({name: tool.entry for name, tool in self.tools.items()})):
            raise BadToolsFile("\n".join(wrong))
        async with anyio.create_task_group() as describing:
            for tool in self.tools.values():
                describing.start_soon(_described, tool)

    def exposed(self) -> Iterator[ServerTool]:
        """Yield the tools that a request may ask for."""
        return (tool for tool in self.tools.values() if tool.entry.expose)

    def of_server(self, label: str) -> list[ServerTool]:
        """Return the tools of an MCP server."""
        return [
            tool for tool in self.exposed() if tool.entry.mcp and tool.entry.mcp.server == label
        ]

    def run(
        self,
        run_id: str,
        seconds: float,
        guests: Mapping[str, ServerTool] | None = None,
        **more: Any,
    ) -> Run:
        """Return the run of a request that has so many seconds, and brings `guests`."""
        policy = self.file.request
        deadline = Deadline.after(min(seconds, policy.deadline))
        tools = {**self.tools, **(guests or {})}
        return Run(run_id, tools, deadline, policy, self.finish, **more)

    async def finish(self, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Run something to its end, whoever stops waiting for it."""
        ends: list[Outcome] = []
        failures: list[Exception] = [Fault("cancelled", "The server is shutting down.")]
        over = anyio.Event()

        async def run() -> None:
            try:
                ends.append(await work())
            except Exception as fault:  # noqa: BLE001 - its waiter's matter, not other calls'
                log_unforeseen(telemetry.UNFINISHED_LINE, fault)
                failures.append(fault)
            finally:
                over.set()

        if not self.alive:
            raise failures[0]
        self._finishing.start_soon(run)
        await over.wait()
        if not ends:
            raise failures[-1]
        return ends[0]

    @property
    def alive(self) -> bool:
        """Whether calls can be run: nothing that they need has ended."""
        owners = (self._servers, self._finishing)
        return not self.closed and not any(one.cancel_scope.cancel_called for one in owners)

    async def add_server(self, name: str, entry: ServerEntry) -> None:
        """Take an MCP server in, and its listed tools."""
        environment = {key: secret(place) for key, place in entry.environment.items()}
        if entry.url:
            url, auth = entry.url, credentials(entry.auth)
            allowed = rules(entry.egress, [url, *_token_url(entry)])
            most = max(MOST_BYTES, entry.limits.max_response_bytes)

            def client() -> httpx2.AsyncClient:
                return httpx2.AsyncClient(
                    transport=CappedTransport(CheckedTransport(allowed), most, but_events=True),
                    auth=auth,
                    headers={"accept-encoding": "identity"},
                    timeout=httpx2.Timeout(None, connect=entry.connect_timeout),
                )  # fmt: skip

            connect = over_http(url, client)
            self.reach[f"mcp:{name}"] = allowed
        else:
            connect = over_stdio(entry.command, environment, str(self._folder))
        self.servers[name] = server = McpServer(
            name, connect, pin_schemas=entry.pin_schemas, spawned=not entry.url
        )
        telemetry.MCP_UP.labels(name).set_function(lambda: float(server.up))
        telemetry.MCP_RESTARTS.labels(name)  # a series from the start
        await self._servers.start(server.run)
        shared = entry.model_dump(include=set(ToolPolicy.model_fields), exclude_unset=True)
        for tool in entry.tools:
            mcp = Mcp(server=name, tool=tool)
            approval: dict[str, Any] = {"approval": {}} if entry.require_approval else {}
            self.add_tool(ToolEntry(**{**approval, **shared}, name=f"{name}__{tool}", mcp=mcp))

    def add_tool(self, entry: ToolEntry) -> None:
        """Take a tool in; raise BadToolsFile."""
        executor, effect = MAKERS[entry.kind](self, entry)
        first = self._first.setdefault(executor.upstream, entry)
        if wrong := list(disagreements(first, entry, executor.upstream)):
            raise BadToolsFile("\n".join(wrong))
        upstream = self.upstreams.get(executor.upstream)
        if upstream is None:
            upstream = self.upstreams[executor.upstream] = Upstream(executor.upstream, entry)
            _show_upstream(upstream)
        tool = ServerTool(entry, entry.effect or effect, executor, upstream, self.tools)
        self.tools[entry.name] = tool
        _show_bulkhead(tool)

    def _http(self, entry: ToolEntry) -> tuple[Executor, EffectClass]:
        assert entry.http is not None, "the kind says so"
        client = self._client(entry, entry.http.url)
        made = HttpExecutor(entry.http, client, _key_header(entry))
        return made, "read" if entry.http.method in IN_QUERY - {"DELETE"} else "write"

    def _openapi(self, entry: ToolEntry) -> tuple[Executor, EffectClass]:
        assert entry.openapi is not None, "the kind says so"
        found = operation(entry.openapi, self._folder)
        client = self._client(entry, found.request.url)
        made = OpenApiExecutor(found, client, _key_header(entry))
        return made, "read" if found.request.method in IN_QUERY - {"DELETE"} else "write"

    def _mcp(self, entry: ToolEntry) -> tuple[Executor, EffectClass]:
        assert entry.mcp is not None, "the kind says so"
        server = self.servers[entry.mcp.server]
        cap = entry.limits.max_response_bytes
        return McpExecutor(server, entry.mcp.tool or entry.name, cap), "write"

    def _python(self, entry: ToolEntry) -> tuple[Executor, EffectClass]:
        assert entry.python is not None, "the kind says so"
        run_in = entry.python.place(entry.effect)
        cap = entry.limits.max_response_bytes
        made = PythonExecutor(entry.python, run_in, entry.bulkhead.max_concurrent, cap)
        self._stack.push_async_callback(made.aclose)
        telemetry.LEAKED_THREADS.labels(entry.name).set_function(lambda: float(made.leaked))
        return made, "write"

    def _client(self, entry: ToolEntry, url: str) -> httpx2.AsyncClient:
        allowed = self.reach[entry.name] = rules(entry.egress, [url, *_token_url(entry)])
        client = httpx2.AsyncClient(
            transport=CappedTransport(CheckedTransport(allowed), entry.limits.max_response_bytes),
            auth=credentials(entry.auth),
            timeout=httpx2.Timeout(entry.attempt_timeout, connect=entry.connect_timeout),
        )
        self._stack.push_async_callback(client.aclose)
        return client


Maker = Callable[[Toolbox, ToolEntry], tuple[Executor, EffectClass]]
MAKERS: Mapping[str, Maker] = {
    "http": Toolbox._http,  # noqa: SLF001 - the table of this class's own makers
    "mcp": Toolbox._mcp,  # noqa: SLF001
    "openapi": Toolbox._openapi,  # noqa: SLF001
    "python": Toolbox._python,  # noqa: SLF001
}


def _token_url(entry: ToolEntry | ServerEntry) -> list[str]:
    return [entry.auth.token_url] if isinstance(entry.auth, ClientCredentials) else []


def _key_header(entry: ToolEntry) -> str | None:
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
            await tool.describe()
    except Fault:
        return


@asynccontextmanager
async def opened(file: ToolsFile = NO_TOOLS, folder: Path = Path()) -> AsyncGenerator[Toolbox]:
    """Open a file's tools; raise BadToolsFile. Closing waits for writes that still run."""
    bad: BadToolsFile | None = None  # raised from here: a task group would wrap it
    async with AsyncExitStack() as stack, anyio.create_task_group() as servers:
        async with anyio.create_task_group() as finishing:
            toolbox = Toolbox(file, folder, stack, servers, finishing)
            try:
                await toolbox.fill()
            except BadToolsFile as fault:
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
