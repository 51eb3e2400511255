"""Builds the executors and the MCP clients of a tools file, with their connections."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import httpx2

from falsework.server.observability import telemetry
from falsework.server.tools.config import (
    ClientCredentials,
    EffectClass,
    McpServerConfig,
    ToolConfig,
)
from falsework.server.tools.executors import (
    BODILESS_METHODS,
    MAX_MESSAGE_BYTES,
    EgressRules,
    EgressTransport,
    Executor,
    HttpExecutor,
    McpClient,
    McpExecutor,
    OpenApiExecutor,
    PythonExecutor,
    SizeLimitTransport,
    StdioServer,
    TransportFactory,
    build_auth,
    egress_rules,
    http_transport,
    load_operation,
    read_secret,
)
from falsework.server.tools.redaction import MIN_IDENTIFIER_CHARS
from falsework.server.tools.services import ToolServices


class BuiltExecutor(NamedTuple):
    """An executor, and the effect of its tool where the tools file gives none."""

    executor: Executor
    effect: EffectClass


class ExecutorBuilder:
    """Builds executors; the exit stack closes their connections and processes."""

    def __init__(self, folder: Path, stack: AsyncExitStack, services: ToolServices) -> None:
        """`folder` is the tools file's: documents, commands and functions are looked for there."""
        self.servers: dict[str, McpClient] = {}
        self.egress: dict[str, EgressRules] = {}
        """The egress rules by tool, and by MCP server as `mcp:NAME`."""
        self._folder = folder
        self._stack = stack
        self.services = services

    def build(self, entry: ToolConfig) -> BuiltExecutor:
        """Build the executor of a tool; raise ToolsFileError."""
        return EXECUTOR_FACTORIES[entry.kind](self, entry)

    def build_server(self, name: str, entry: McpServerConfig) -> McpClient:
        """Build the client of an MCP server, which isn't connected yet; raise ToolsFileError."""
        if entry.url:
            connect = self._mcp_http(name, entry, entry.url)
        else:
            connect = self._mcp_stdio(name, entry).connect
        self.servers[name] = server = McpClient(
            name, connect, pin_schemas=entry.pin_schemas, spawned=not entry.url
        )
        telemetry.MCP_UP.labels(name).set_function(lambda: float(server.connected))
        telemetry.MCP_RESTARTS.labels(name)  # a series from the start
        return server

    def _mcp_http(self, name: str, entry: McpServerConfig, url: str) -> TransportFactory:
        auth = build_auth(entry.auth, self.services.redactor)
        rules = self.egress[f"mcp:{name}"] = egress_rules(entry.egress, [url, *_token_urls(entry)])

        def client(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                transport=transport,
                auth=auth,
                headers={"accept-encoding": "identity"},
                timeout=httpx2.Timeout(None, connect=entry.connect_timeout),
            )

        return http_transport(url, lambda: EgressTransport(rules), client, _message_cap(entry))

    def _mcp_stdio(self, name: str, entry: McpServerConfig) -> StdioServer:
        program, *arguments = entry.command
        command = [sys.executable if program == "python" else program, *arguments]
        environment = {key: read_secret(ref) for key, ref in entry.environment.items()}
        for secret in environment.values():
            self.services.redactor.add(secret, minimum=MIN_IDENTIFIER_CHARS)
        redactor, folder = self.services.redactor, str(self._folder)
        return StdioServer(name, command, environment, folder, _message_cap(entry), redactor)

    def _http(self, entry: ToolConfig) -> BuiltExecutor:
        assert entry.http is not None, "the kind says so"
        client = self._http_client(entry, entry.http.url)
        executor = HttpExecutor(entry.http, client, _key_header(entry))
        return BuiltExecutor(executor, _effect_of_method(entry.http.method))

    def _openapi(self, entry: ToolConfig) -> BuiltExecutor:
        assert entry.openapi is not None, "the kind says so"
        operation = load_operation(entry.openapi, self._folder)
        client = self._http_client(entry, operation.request.url)
        executor = OpenApiExecutor(operation, client, _key_header(entry))
        return BuiltExecutor(executor, _effect_of_method(operation.request.method))

    def _mcp(self, entry: ToolConfig) -> BuiltExecutor:
        assert entry.mcp is not None, "the kind says so"
        server = self.servers[entry.mcp.server]
        cap = entry.limits.max_response_bytes
        return BuiltExecutor(McpExecutor(server, entry.mcp.tool or entry.name, cap), "write")

    def _python(self, entry: ToolConfig) -> BuiltExecutor:
        assert entry.python is not None, "the kind says so"
        run_in = entry.python.run_location(entry.effect)
        cap = entry.limits.max_response_bytes
        max_workers = entry.bulkhead.max_concurrent
        executor = PythonExecutor(entry.python, run_in, max_workers, cap, self._folder)
        self._stack.push_async_callback(executor.aclose)
        gauge = telemetry.LEAKED_THREADS.labels(entry.name)
        gauge.set_function(lambda: float(executor.leaked_threads))
        return BuiltExecutor(executor, "write")

    def _http_client(self, entry: ToolConfig, url: str) -> httpx2.AsyncClient:
        rules = self.egress[entry.name] = egress_rules(entry.egress, [url, *_token_urls(entry)])
        client = httpx2.AsyncClient(
            transport=SizeLimitTransport(EgressTransport(rules), entry.limits.max_response_bytes),
            auth=build_auth(entry.auth, self.services.redactor),
            timeout=httpx2.Timeout(entry.attempt_timeout, connect=entry.connect_timeout),
        )
        self._stack.push_async_callback(client.aclose)
        return client


EXECUTOR_FACTORIES: Mapping[str, Callable[[ExecutorBuilder, ToolConfig], BuiltExecutor]] = {
    "http": ExecutorBuilder._http,  # noqa: SLF001 - the table of this class's own methods
    "mcp": ExecutorBuilder._mcp,  # noqa: SLF001
    "openapi": ExecutorBuilder._openapi,  # noqa: SLF001
    "python": ExecutorBuilder._python,  # noqa: SLF001
}


def _message_cap(entry: McpServerConfig) -> int:
    return max(MAX_MESSAGE_BYTES, entry.limits.max_response_bytes)


def _effect_of_method(method: str) -> EffectClass:
    return "read" if method in BODILESS_METHODS - {"DELETE"} else "write"


def _token_urls(entry: ToolConfig | McpServerConfig) -> list[str]:
    return [entry.auth.token_url] if isinstance(entry.auth, ClientCredentials) else []


def _key_header(entry: ToolConfig) -> str | None:
    return entry.idempotency.header if entry.idempotency else None
