"""Transports to MCP servers: streamable HTTP, and stdio of a command."""

import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self

import anyio
import httpx2
from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

TransportFactory = Callable[[], AbstractAsyncContextManager[Any]]

MAX_MESSAGE_BYTES = 2**20
"""The size limit of any message, a list of tools for example; results have their own limit."""


def http_transport(url: str, client: Callable[[], httpx2.AsyncClient]) -> TransportFactory:
    """Return a factory of connections over streamable HTTP."""

    @asynccontextmanager
    async def connect() -> AsyncGenerator[Any]:
        async with (
            client() as http_client,
            streamable_http_client(url, http_client=http_client) as streams,
        ):
            yield streams

    return connect


def stdio_transport(
    command: tuple[str, ...], environment: Mapping[str, str], folder: str
) -> TransportFactory:
    """Return a factory that starts a server and connects to its standard input and output.

    The command `python` is the interpreter that this server runs on.
    """
    program, *arguments = command
    parameters = StdioServerParameters(
        command=sys.executable if program == "python" else program,
        args=arguments,
        env=dict(environment),
        cwd=folder,
    )
    return lambda: stdio_client(parameters)


@asynccontextmanager
async def notify_on_close(
    transport: AbstractAsyncContextManager[Any], lost: anyio.Event
) -> AsyncGenerator[Any]:
    """Connect, and set `lost` at the end of the incoming stream."""
    async with transport as (read_stream, write_stream):
        yield _NotifyingStream(read_stream, lost), write_stream


class _NotifyingStream:
    """A stream that sets an event at its end: a server may die between calls."""

    def __init__(self, stream: Any, ended: anyio.Event) -> None:
        self._stream = stream
        self._ended = ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> Any:
        return self._stream.__aiter__()

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> Any:
        self._ended.set()
        return await self._stream.__aexit__(*raised)
