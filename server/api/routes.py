"""What the routes of chat completions and responses do with a request, from body to reply."""

from falsework.server.types import Json
import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import replace
from typing import Any

from anyio.abc import TaskGroup
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from falsework.server.api.chat import executed_calls, schema
from falsework.server.api.chat.completion import collect_completion, stream_chunks
from falsework.server.api.chat.objects import ReplyHeader
from falsework.server.api.chat.request import GenerationRequest, to_generation_request
from falsework.server.api.idempotency import IdempotencyKeys, IdempotentRequest
from falsework.server.api.responses import schema as responses_wire
from falsework.server.api.responses.service import ResponseService
from falsework.server.api.responses.state import InProgressResponse, paginate
from falsework.server.api.server_tools import ServerTools, resolve_server_tools
from falsework.server.errors import BadRequestError, NotFoundError
from falsework.server.generation.tool_loop import LoopEvent, ToolLoop
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.http.client_timeout import client_timeout
from falsework.server.http.middleware import read_body
from falsework.server.http.sse import cancel_on_disconnect, open_stream
from falsework.server.observability.request_metrics import RequestMetrics, record_outcome
from falsework.server.settings import Settings
from falsework.server.storage.store import TOMBSTONE, Store
from falsework.server.tools.registry import ToolRegistry

REPLAYED_HEADER = {"idempotent-replayed": "true"}


class Routes:
    """The two ways to ask; made once the tools and the database are open."""

    def __init__(  # noqa: PLR0913 - here the parts meet
        self,
        settings: Settings,
        chat: TurnRunner,
        toolbox: ToolRegistry,
        records: Store,
        tasks: TaskGroup,
        fingerprint: str,
    ) -> None:
        """`tasks` is where responses are made that nobody waits for."""
        self._settings = settings
        self._chat = chat
        self._toolbox = toolbox
        self._records = records
        self._tasks = tasks
        self._fingerprint = fingerprint
        self._keys = IdempotencyKeys(records)
        self._answers = ResponseService(chat, settings, toolbox, records)

    async def create_chat_completion(self, request: Request) -> Response:
        """Answer a chat request."""
        body = await read_body(request, self._settings.max_body_bytes)
        asked = schema.parse(body)
        self.check_model(asked.model)
        ours = await resolve_server_tools(asked.tools or [], self._toolbox)
        if ours.approval:
            message = "Only /v1/responses can ask for approval: set 'require_approval' to 'never'."
            raise BadRequestError(message, "tools", "invalid_value")
        question = to_generation_request(await self._recalled(request, asked), self._settings, ours)
        if not ours.by_position and "idempotency-key" not in request.headers:
            return await self._completed(request, question, ours, None)
        async with AsyncExitStack() as stack:
            claimed = self._keys.acquire(request, body, principal(request))
            claim = await stack.enter_async_context(claimed)
            if claim.reply is not None:
                return await self._replayed(request, claim.reply)
            return await self._completed(request, question, ours, claim, stack)

    async def create_response(self, request: Request) -> Response:
        """Answer a request for a response."""
        body = await read_body(request, self._settings.max_body_bytes)
        asked = responses_wire.parse(body)
        self.check_model(asked.model)
        owner = principal(request)
        async with AsyncExitStack() as stack:
            claim = await stack.enter_async_context(self._keys.acquire(request, body, owner))
            if claim.reply is not None:
                return await self._replayed(request, claim.reply)
            seconds = client_timeout(request.headers, alone=bool(asked.background))
            live = await self._answers.create(asked, owner, claim, seconds)
            if asked.background:
                return await self._in_background(request, live, claim)
            if asked.stream:
                told = _kept(self._answers.stream(live), claim, stack.pop_all())
                return await open_stream(request, told, live.fail)
            reply = await cancel_on_disconnect(request, self._answers.run(live))
            claim.reply = {"json": reply}
            return JSONResponse(reply)

    async def _in_background(
        self, request: Request, live: InProgressResponse, claim: IdempotentRequest
    ) -> Response:
        seat: ExitStack = request.state.seat.pop_all()  # until the response is made
        self._tasks.start_soon(self._answers.run_in_background, live, seat)
        if live.response.request.stream:
            claim.reply = {"response": live.response.id}
            return await self.stream_events(request, live.response.id, -1)
        claim.reply = {"json": live.response.to_openai()}
        return JSONResponse(claim.reply["json"])

    async def stream_events(self, request: Request, response_id: str, after: int) -> Response:
        """Stream the events of a response from behind number `after` on."""
        events = self._answers.stream_events(principal(request), response_id, after)
        return await open_stream(request, events)

    async def retrieve(self, request: Request, response_id: str) -> Response:
        """Return a response, or its events again."""
        owner, query = principal(request), request.query_params
        if query.get("stream") != "true":
            return JSONResponse(await self._answers.retrieve(owner, response_id))
        after = query.get("starting_after", "")
        number = int(after) if after.isdecimal() else -1
        return await self.stream_events(request, response_id, number)

    async def delete(self, request: Request, response_id: str) -> Json:
        """Delete a response."""
        return await self._answers.delete(principal(request), response_id)

    async def cancel(self, request: Request, response_id: str) -> Json:
        """Stop a response that is made in the background."""
        return await self._answers.cancel(principal(request), response_id)

    async def input_items(self, request: Request, response_id: str) -> Json:
        """Return the items that a response was asked with."""
        items = await self._answers.input_items(principal(request), response_id)
        return paginate(items, request.query_params)

    def check_model(self, name: str) -> None:
        """Refuse a model that isn't served."""
        if name != self._settings.model_id:
            raise NotFoundError(
                f"The model '{name[:200]}' does not exist. This server has "
                f"'{self._settings.model_id}'.",
                "model",
                "model_not_found",
            )

    async def _completed(
        self,
        request: Request,
        question: GenerationRequest,
        ours: ServerTools,
        claim: IdempotentRequest | None,
        stack: AsyncExitStack | None = None,
    ) -> Response:
        envelope = ReplyHeader(question, self._fingerprint)
        watch = RequestMetrics(question.model, "chat", question.stream)
        half_calls = question.stream and self._settings.stream_calls == "as_decoded"
        told: AsyncGenerator[LoopEvent] = self._chat.stream(question, watch, half_calls=half_calls)
        if ours.by_position and claim:
            run = self._toolbox.new_run(
                claim.run_id,
                client_timeout(request.headers),
                ours.guests,
                principal=principal(request),
            )
            claim.attach_run(run)
            envelope = replace(envelope, runtime=run.summary)
            told = ToolLoop(self._chat, run, watch, ours.names).stream(question)
        told = record_outcome(told, watch)
        if question.stream:
            chunks = stream_chunks(told, envelope)
            if claim and stack:
                chunks = _kept(self._mixed(request, chunks), claim, stack.pop_all())
            return await open_stream(request, chunks)
        reply = await cancel_on_disconnect(request, collect_completion(told, envelope))
        if claim:
            await executed_calls.save_executed_calls(self._records, principal(request), [reply])
            claim.reply = {"json": reply}
        return JSONResponse(reply)

    async def _recalled(
        self, request: Request, asked: schema.ChatCompletionRequest
    ) -> schema.ChatCompletionRequest:
        """Return a request that has in its history what the server ran."""
        if not (self._toolbox.tools or self._toolbox.file.request_servers.allow_hosts):
            return asked
        messages = await executed_calls.restore_executed_calls(
            self._records, principal(request), asked.messages
        )
        return asked.model_copy(update={"messages": messages})

    async def _mixed(self, request: Request, chunks: AsyncGenerator[Json]) -> AsyncGenerator[Json]:
        """Pass a stream on; before its last chunk what the server ran is kept."""
        said: list[Json] = []
        async with aclosing(chunks):
            async for chunk in chunks:
                said.append(chunk)
                if any(choice["finish_reason"] for choice in chunk["choices"]):
                    await executed_calls.save_executed_calls(
                        self._records, principal(request), said
                    )
                yield chunk

    async def _replayed(self, request: Request, reply: Mapping[str, Any]) -> Response:
        if reply == TOMBSTONE:
            raise NotFoundError("The response to this request was deleted.")
        if "json" in reply:
            return JSONResponse(reply["json"], headers=REPLAYED_HEADER)
        if "response" in reply:
            response = await self.stream_events(request, reply["response"], -1)
        else:
            response = await open_stream(request, _again(reply["events"]))
        response.headers.update(REPLAYED_HEADER)
        return response


def principal(request: Request) -> str:
    """Return who asks, without telling the key."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    borne = f"{scheme.capitalize()} {key.strip()}"
    return hashlib.sha256(borne.encode()).hexdigest()[:32] if scheme else ""


async def _kept(
    chunks: AsyncGenerator[Json], claim: IdempotentRequest, stack: AsyncExitStack
) -> AsyncGenerator[Json]:
    """Pass a stream on; once it is complete, it is what the claim's request got."""
    said: list[Json] = []
    async with stack, aclosing(chunks):
        async for chunk in chunks:
            said.append(chunk)
            yield chunk
        claim.reply = {"events": said}


async def _again(events: Sequence[Json]) -> AsyncGenerator[Json]:
    for event in events:
        await asyncio.sleep(0)
        yield event
