"""Responses over one WebSocket: `response.create` comes in, the events of its response go out.

One response is made at a time; others wait in the order in which they were asked for. What isn't
stored can be continued on its own connection, which remembers the latest conversations.
"""

import json
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import cachetools
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from falsework.server.api.idempotency import IdempotentRequest
from falsework.server.api.responses.schema import parse
from falsework.server.api.responses.service import ResponseService
from falsework.server.api.responses.state import InProgressResponse
from falsework.server.api.services import Services
from falsework.server.errors import (
    APIError,
    BadRequestError,
    InternalServerError,
    PayloadTooLarge,
    error_body,
    error_response,
)
from falsework.server.http import APIKeyAuth, principal
from falsework.server.ids import new_id
from falsework.server.observability import collect_warnings, telemetry
from falsework.server.types import Json

MAX_WAITING = 16
"""Requests of one connection that may wait."""

MAX_KEPT = 8
"""Conversations that one connection remembers."""

IDLE_SECONDS = 3600.0
"""How long a connection may be without a request."""

NOT_BY_SOCKET = {"background": "use POST /v1/responses", "generate": "nothing is warmed up here"}

log = structlog.get_logger("falsework")

router = APIRouter()


@router.websocket("/v1/responses")
async def respond(socket: WebSocket) -> None:
    """Answer the requests of a connection until it ends."""
    services: Services = socket.state.services
    try:
        await APIKeyAuth(services.settings.api_key)(socket)
    except APIError as error:
        await socket.send_denial_response(error_response(error))
        return
    await socket.accept()
    send, receive = anyio.create_memory_object_stream[str](MAX_WAITING)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_listen, socket, send, tasks.cancel_scope)
        await _Connection(socket, services).serve(receive)
        tasks.cancel_scope.cancel()


async def _listen(
    socket: WebSocket, send: MemoryObjectSendStream[str], scope: anyio.CancelScope
) -> None:
    """Pass on what the client sends; end everything once it is gone."""
    async with send:
        try:
            while True:
                await send.send(await socket.receive_text())
        except (WebSocketDisconnect, KeyError):  # KeyError: bytes came, where text was due
            scope.cancel()


class _Connection:
    """One connection: its requests one after the other, and what it may continue."""

    def __init__(self, socket: WebSocket, services: Services) -> None:
        self._socket = socket
        self._services = services
        self._responses: ResponseService = socket.state.responses
        self._owner = principal(socket)
        self._kept: cachetools.LRUCache[str, list[Json]] = cachetools.LRUCache(MAX_KEPT)

    async def serve(self, requests: MemoryObjectReceiveStream[str]) -> None:
        async with requests:
            while True:
                with anyio.move_on_after(IDLE_SECONDS) as idle:
                    text = await requests.receive()
                if idle.cancelled_caught:
                    await self._socket.close()
                    return
                await self._answer(text)

    async def _answer(self, text: str) -> None:
        collect_warnings()
        structlog.contextvars.bind_contextvars(request_id=new_id("req_"))
        try:
            with self._services.admission.acquire():
                async with aclosing(self._events(text)) as events:
                    async for event in events:
                        await self._send(event)
        except APIError as error:
            await self._send({"type": "error", "status": error.status, **error_body(error)})
        except Exception:
            # The outermost handler of a request on a connection, which others will use.
            log.exception(telemetry.FAILED_LINE)
            failure = InternalServerError("The server failed. The fault is its own, and is logged.")
            await self._send({"type": "error", "status": failure.status, **error_body(failure)})

    async def _events(self, text: str) -> AsyncGenerator[Json]:
        fields = parse(_body(text, self._services.settings.max_body_bytes))
        self._services.check_model(fields.model)
        once = IdempotentRequest(self._services.store, new_id("run_"))
        response = await self._responses.create(fields, self._owner, once, math.inf, self._kept)
        async with aclosing(self._responses.stream(response)) as events:
            async for event in events:
                yield event
        self._keep(response)

    def _keep(self, response: InProgressResponse) -> None:
        self._kept[response.id] = response.conversation()

    async def _send(self, event: Json) -> None:
        await self._socket.send_text(json.dumps(event, ensure_ascii=False, separators=(",", ":")))


def _body(text: str, limit: int) -> bytes:
    """Return the body of the request that a message is."""
    body = text.encode("utf-8", "replace")
    if len(body) > limit:
        raise PayloadTooLarge(f"The message has more than the {limit} bytes that are allowed.")
    try:
        message: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"The message isn't valid JSON: {error}.") from error
    if not isinstance(message, dict) or message.get("type") != "response.create":
        raise BadRequestError("A message should be of type 'response.create'.", "type")
    for name, instead in NOT_BY_SOCKET.items():
        if message.get(name) not in (None, name == "generate"):
            text = f"'{name}' isn't supported over a WebSocket: {instead}."
            raise BadRequestError(text, name, "unsupported_parameter")
    fields = {name: value for name, value in message.items() if name != "type"}
    return json.dumps({**fields, "stream": True}).encode()
