"""POST /v1/chat/completions: from the body of a request to its reply."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any

import anyio
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from falsework.server.api.chat import executed_calls
from falsework.server.api.chat.objects import ReplyHeader, collect_completion, stream_chunks
from falsework.server.api.chat.request import to_generation_request
from falsework.server.api.chat.schema import ChatCompletionRequest, parse
from falsework.server.api.idempotency import IDEMPOTENCY_HEADER, IdempotentRequest, replay
from falsework.server.api.server_tools import ServerTools, resolve_server_tools
from falsework.server.api.services import BodyDep, Services, ServicesDep, hold_seat
from falsework.server.errors import BadRequestError
from falsework.server.generation import GenerationRequest, LoopEvent, ToolLoop
from falsework.server.http import cancel_on_disconnect, client_timeout, open_stream, principal
from falsework.server.observability import RequestMetrics
from falsework.server.storage import NOT_STORED, StorageUnavailable, StoredReply
from falsework.server.types import Json

router = APIRouter()


@router.post("/v1/chat/completions", dependencies=[Depends(hold_seat)])
async def create_chat_completion(
    request: Request, services: ServicesDep, body: BodyDep
) -> Response:
    """Answer a chat request."""
    deadline = anyio.current_time() + client_timeout(request.headers)
    chat = parse(body)
    services.check_model(chat.model)
    owner = principal(request)
    server_tools = await resolve_server_tools(chat.tools or (), services.registry, owner)
    if server_tools.approval:
        message = "Only /v1/responses can ask for approval: set 'require_approval' to 'never'."
        raise BadRequestError(message, "tools", "invalid_value")
    chat = await _restore_executed(services, owner, chat)
    generation = to_generation_request(chat, services.settings, server_tools)
    generation = replace(generation, owner=owner)
    completion = _Completion(request, services, owner, generation, server_tools, deadline)
    if not server_tools.by_position and IDEMPOTENCY_HEADER not in request.headers:
        return await completion.reply()
    async with AsyncExitStack() as stack:
        acquired = await stack.enter_async_context(services.keys.acquire(request, body, owner))
        if acquired.reply is not None:
            return await replay(request, acquired.reply)
        return await completion.reply_once(acquired, stack)


async def _restore_executed(
    services: Services, owner: str, chat: ChatCompletionRequest
) -> ChatCompletionRequest:
    """Return a request with what the server ran in its history."""
    registry = services.registry
    if not (registry.tools or registry.file.request_servers.allow_hosts):
        return chat
    messages = await executed_calls.restore_executed_calls(services.store, owner, chat.messages)
    return chat.model_copy(update={"messages": messages})


@dataclass(frozen=True)
class _Completion:
    """One chat request on its way to its reply."""

    http: Request
    services: Services
    owner: str
    generation: GenerationRequest
    server_tools: ServerTools
    deadline: float

    async def reply(self) -> Response:
        """Return the reply of a request that is done anew each time it comes."""
        metrics = self._metrics()
        header = ReplyHeader(self.generation, self.services.fingerprint)
        events = self._model_events(metrics)
        if self.generation.stream:
            return await open_stream(self.http, stream_chunks(events, header, metrics))
        return JSONResponse(
            await cancel_on_disconnect(self.http, collect_completion(events, header, metrics))
        )

    async def reply_once(self, acquired: IdempotentRequest, stack: AsyncExitStack) -> Response:
        """Return the reply of a request that is done once, its server tools with it."""
        metrics = self._metrics()
        header = ReplyHeader(self.generation, self.services.fingerprint)
        events = self._model_events(metrics)
        if self.server_tools.by_position:
            run = self.services.registry.new_run(
                acquired.run_id,
                client_timeout(self.http.headers),
                self.server_tools.request_tools,
                principal=self.owner,
                record=acquired.record,
                memory=acquired.memory,
            )
            acquired.wait_for(run)
            header = replace(header, runtime=run.summary)
            loop = ToolLoop(self.services.runner, run, metrics, self.server_tools.names)
            events = loop.stream(self.generation)
        if self.generation.stream:
            chunks = self._save_executed(stream_chunks(events, header, metrics))
            return await open_stream(self.http, acquired.collect(chunks, stack.pop_all()))
        completion = await cancel_on_disconnect(
            self.http, collect_completion(events, header, metrics)
        )
        await self._save([completion], completion)
        acquired.complete(StoredReply(body=completion))
        return JSONResponse(completion)

    def _metrics(self) -> RequestMetrics:
        return RequestMetrics(self.generation.model, "chat", self.generation.stream)

    def _model_events(self, metrics: RequestMetrics) -> AsyncGenerator[LoopEvent]:
        as_decoded = self.services.settings.stream_calls == "as_decoded"
        half_calls = self.generation.stream and as_decoded
        events: AsyncGenerator[Any] = self.services.runner.stream(
            self.generation, metrics, half_calls=half_calls, deadline=self.deadline
        )
        return events

    async def _save_executed(self, chunks: AsyncGenerator[Json]) -> AsyncGenerator[Json]:
        """Yield a stream; before its last chunk what the server ran is stored."""
        sent: list[Json] = []
        async with aclosing(chunks):
            async for chunk in chunks:
                sent.append(chunk)
                if any(choice["finish_reason"] for choice in chunk["choices"]):
                    await self._save(sent, chunk)
                yield chunk

    async def _save(self, chunks: list[Json], last: Json) -> None:
        """Store what the server ran; where that fails it stands, and the reply warns."""
        try:
            await executed_calls.save_executed_calls(self.services.store, self.owner, chunks)
        except StorageUnavailable as error:
            warning = {"code": error.code, "message": NOT_STORED}
            last["warnings"] = [*last.get("warnings", ()), warning]
