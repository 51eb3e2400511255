"""The streamable HTTP transport, with what the MCP library leaves to HTTP: statuses and limits."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.http_errors import status_error
from falsework.server.tools.executors.mcp_link import (
    PENDING_CALL,
    McpLink,
    PendingCall,
    TransportFactory,
)
from falsework.server.tools.executors.output_budget import OutputBudget
from falsework.server.tools.executors.response_limits import (
    SSE_CONTENT_TYPE,
    ResponseBodyError,
    SizeLimitTransport,
)

MAX_MESSAGE_BYTES = 2**20
"""The size limit of any message, a list of tools for example; results have their own limit."""

EVENT_CAPS = 4
"""Messages of the largest size that one event may have to the library: the budget ends sooner."""

SESSION_HEADER = "mcp-session-id"

BODY_GRACE = 1.0
"""Seconds after the deadline of a call in which its response may still arrive."""

HttpClientFactory = Callable[[httpx2.AsyncBaseTransport], httpx2.AsyncClient]


def http_transport(
    url: str, inner: Callable[[], httpx2.AsyncBaseTransport], client: HttpClientFactory, cap: int
) -> TransportFactory:
    """Return a factory of connections over streamable HTTP.

    `inner` makes the transport of a connection, `client` the client on top; `cap` limits messages.
    """

    @asynccontextmanager
    async def connect(link: McpLink) -> AsyncGenerator[Any]:
        transport = McpHttpTransport(inner(), link, cap)
        async with (
            client(transport) as http_client,
            streamable_http_client(
                url, http_client=http_client, max_sse_event_size=EVENT_CAPS * cap
            ) as streams,
        ):
            yield streams

    return connect


class McpHttpTransport(httpx2.AsyncBaseTransport):
    """Notes the error status of a call's response, and limits event streams."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, link: McpLink, cap: int) -> None:
        self._inner = SizeLimitTransport(inner, cap, exempt_events=True)
        self._link = link
        self._cap = cap

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        call = PENDING_CALL.get() if request.method == "POST" else None
        response = await self._inner.handle_async_request(request)
        if call and response.status_code >= httpx2.codes.BAD_REQUEST:
            call.error = status_error(response.status_code, response.headers)
            is_lost = response.status_code == httpx2.codes.NOT_FOUND
            call.session_lost = is_lost and SESSION_HEADER in request.headers
        assert isinstance(response.stream, httpx2.AsyncByteStream), "the transport is async"
        is_event_stream = (
            response.headers.get("content-type", "").lower().startswith(SSE_CONTENT_TYPE)
        )
        budget = OutputBudget(self._cap) if is_event_stream else None
        response.stream = _Stream(response.stream, self._link, call, budget)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Stream(httpx2.AsyncByteStream):
    """A body that ends some time after its call, and before its server has sent too much."""

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        link: McpLink,
        call: PendingCall | None,
        budget: OutputBudget | None,
    ) -> None:
        self._stream = stream
        self._link = link
        self._call = call
        self._budget = budget

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            if self._call and self._call.deadline.remaining() < -BODY_GRACE:
                raise ResponseBodyError("timeout", "The response came too late.", sent=True)
            if self._budget and not self._budget.spend(chunk):
                message = "The MCP server sent more than its calls ask for."
                self._link.fail(ToolCallError("too_large", message, sent=True))
                raise ResponseBodyError("too_large", message, sent=True)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
