"""What a transport tells of one connection to an MCP server: that it is over, and why.

The MCP library turns all that goes wrong in a transport into one error; the causes that matter for
retries are kept here beside it.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

import anyio

from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError


@dataclass
class McpLink:
    """One connection: `lost` is set at its end, `failure` is the cause where the server has one."""

    lost: anyio.Event = field(default_factory=anyio.Event)
    failure: ToolCallError | None = None

    def fail(self, failure: ToolCallError) -> None:
        """End the connection because of something that the server did."""
        self.failure = self.failure or failure
        self.lost.set()


@dataclass
class PendingCall:
    """A call on its way through the library; the transport notes the error of its HTTP response."""

    deadline: Deadline
    error: ToolCallError | None = None
    session_lost: bool = False


PENDING_CALL: ContextVar[PendingCall | None] = ContextVar("pending_call", default=None)
"""The call of this task; the library sends its request in the same context."""

TransportFactory = Callable[[McpLink], AbstractAsyncContextManager[Any]]
"""Opens the streams of a connection, of which the library reads and writes messages."""


@asynccontextmanager
async def notify_on_close(
    transport: AbstractAsyncContextManager[Any], link: McpLink
) -> AsyncGenerator[Any]:
    """Connect, and set `lost` at the end of the incoming stream."""
    async with transport as (read_stream, write_stream):
        yield _NotifyingStream(read_stream, link.lost), write_stream


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
