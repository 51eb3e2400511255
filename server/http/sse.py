"""Replies on their way to a client that may go away at any time."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from anyio import CancelScope
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from falsework.server.errors import (
    APIError,
    ClientDisconnected,
    InternalServerError,
    error_body,
)
from falsework.server.observability import telemetry
from falsework.server.types import Json

LINE_END = "\n"
KEEP_ALIVE_SECONDS = 10
SEND_TIMEOUT_SECONDS = 60
FIRST_CHUNK_TIMEOUT = 5
"""How long an answer waits for its first chunk: an early failure is told by the status."""

Result = TypeVar("Result")

log = structlog.get_logger("falsework")


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what `work` returns, or give it up as soon as the client is gone."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_leaves(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnected("The client went away before the reply was ready.")
        return working.result()
    finally:
        await _give_up(working, leaving)


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _give_up(*tasks: asyncio.Task[Any]) -> None:
    with CancelScope(shield=True):
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class StreamStyle:
    """What a protocol sends beside its chunks: an error, the last line, and a sign of life."""

    error: Callable[[APIError], Json] = error_body
    end: str | None = "[DONE]"
    ping: Json | None = None
    """The event that is sent while nothing comes; None is a comment."""

    def keep_alive(self) -> ServerSentEvent:
        """Return what is sent while nothing comes."""
        if self.ping is None:
            return ServerSentEvent(comment="keep-alive", sep=LINE_END)
        return _event(self.ping)


OPENAI_STYLE = StreamStyle()


class EventStream(EventSourceResponse):
    """Server-sent events, one for each chunk; however it ends, the chunks are closed."""

    def __init__(
        self,
        chunks: AsyncGenerator[Json],
        first: "asyncio.Task[Json | None]",
        style: StreamStyle = OPENAI_STYLE,
    ) -> None:
        self._chunks = chunks
        self._first = first
        super().__init__(
            _events(chunks, first, style),
            ping=KEEP_ALIVE_SECONDS,
            ping_message_factory=style.keep_alive,
            send_timeout=SEND_TIMEOUT_SECONDS,
            sep=LINE_END,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _close(self._chunks, self._first)


async def open_stream(
    request: Request, chunks: AsyncGenerator[Json], style: StreamStyle = OPENAI_STYLE
) -> EventStream:
    """Return a stream of the chunks once the first is there, or after some patience."""
    first = asyncio.create_task(_first(chunks))
    try:
        await cancel_on_disconnect(request, _patience(first))
    except BaseException:
        await _close(chunks, first)
        raise
    return EventStream(chunks, first, style)


async def _first(chunks: AsyncGenerator[Json]) -> Json | None:
    return await anext(chunks, None)


async def _patience(first: "asyncio.Task[Json | None]") -> None:
    await asyncio.wait((first,), timeout=FIRST_CHUNK_TIMEOUT)
    if first.done():
        first.result()


async def _close(chunks: AsyncGenerator[Json], first: "asyncio.Task[Json | None]") -> None:
    await _give_up(first)
    with CancelScope(shield=True):
        await chunks.aclose()


async def _events(
    chunks: AsyncGenerator[Json], first: "asyncio.Task[Json | None]", style: StreamStyle
) -> AsyncGenerator[ServerSentEvent]:
    try:
        chunk = await asyncio.shield(first)
        if chunk is not None:
            yield _event(chunk)
        async for chunk in chunks:
            yield _event(chunk)
    except APIError as error:
        yield _event(style.error(error))
    except Exception:
        # The outermost handler of a stream: its status is sent, so only an event can tell.
        log.exception(telemetry.CUT_LINE)
        failure = InternalServerError("The server failed while it streamed the reply.")
        yield _event(style.error(failure))
    if style.end is not None:
        yield _server_sent(style.end)


def _event(chunk: Json) -> ServerSentEvent:
    text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return _server_sent(text, chunk.get("type"))


def _server_sent(text: str, name: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(data=text, event=name, sep=LINE_END)
