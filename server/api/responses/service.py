"""Responses: made, stored, continued, and sent to whoever asks for them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace

import anyio
import anyio.to_thread

from falsework.server.api.idempotency import IdempotentRequest
from falsework.server.api.responses.approvals import consume_approvals, parse_approvals
from falsework.server.api.responses.compaction import compact
from falsework.server.api.responses.event_log import terminal_event
from falsework.server.api.responses.events import ResponseEventBuilder
from falsework.server.api.responses.item_references import resolve_references
from falsework.server.api.responses.maker import ResponseMaker
from falsework.server.api.responses.messages import SERVER_MADE, succeeded_tools
from falsework.server.api.responses.object import ResponseObject
from falsework.server.api.responses.request import PreparedRequest, prepare_request
from falsework.server.api.responses.schema import CreateResponseRequest
from falsework.server.api.responses.state import (
    InProgressResponse,
    ResponseParts,
    normalize_input_item,
)
from falsework.server.api.responses.truncation import build_truncated
from falsework.server.errors import (
    MAX_QUOTED,
    APIError,
    BadRequestError,
    NotFoundError,
)
from falsework.server.generation import GenerationRequest, PreparedTurn, TurnRunner
from falsework.server.observability import RequestMetrics, background_span, warning_objects
from falsework.server.settings import Settings
from falsework.server.storage import Store, StoredResponse
from falsework.server.tools import ToolRegistry, ToolRun
from falsework.server.tools.results import ToolResult
from falsework.server.types import Json


class ResponseService:
    """Makes responses and stores them."""

    def __init__(
        self, runner: TurnRunner, settings: Settings, registry: ToolRegistry, store: Store
    ) -> None:
        self._runner = runner
        self._settings = settings
        self._registry = registry
        self._store = store
        self._maker = ResponseMaker(runner, store)
        self._in_progress: dict[str, InProgressResponse] = {}

    async def create(
        self,
        request: CreateResponseRequest,
        owner: str,
        acquired: IdempotentRequest,
        seconds: float,
        kept: Mapping[str, list[Json]] = {},
    ) -> InProgressResponse:
        """Return a response that can be made; refuse the request before anything is sent.

        Its first turn is built here, once: what can't be prompted or enforced is refused. `kept`
        are conversations that needn't be stored to be continued, by their last response.
        """
        response = ResponseObject(request)
        before, items, prepared = await self._prepare(request, owner, response, kept)
        first_turn = await self._first_turn(request, prepared.generation)
        answers = parse_approvals(before, items, prepared.server_tools.names)
        logprobs = prepared.generation.sampling.logprobs is not None
        response.warnings += warning_objects()
        labels = prepared.server_tools.labels
        builder = ResponseEventBuilder(response, labels, prepared.calls, logprobs=logprobs)
        run = self._new_run(request, owner, acquired, seconds, before, prepared, builder)
        parts = ResponseParts(
            owner,
            request,
            [*before, *items],
            prepared,
            first_turn,
            run,
            RequestMetrics(
                request.model,
                "responses",
                bool(request.stream),
                background=bool(request.background),
            ),
            await consume_approvals(answers, owner, run, self._store),
            anyio.current_time() + seconds,
        )
        if request.background:
            builder.queue()
        if request.store is False:
            acquired.keep_for_retries_only()
        else:
            acquired.belong_to(response.id)
            await self._store.responses.create(
                owner, builder.body, items, parts.history, running=True
            )
        in_progress = InProgressResponse(response.id, parts, builder)
        self._in_progress[response.id] = in_progress
        return in_progress

    async def _prepare(
        self,
        request: CreateResponseRequest,
        owner: str,
        response: ResponseObject,
        kept: Mapping[str, list[Json]] = {},
    ) -> tuple[list[Json], list[Json], PreparedRequest]:
        """Return the items of the conversation so far, those of the input, and what is asked."""
        resolved = await resolve_references(request.input or [], owner, self._store)
        items = [normalize_input_item(item, response) for item in resolved]
        before = kept.get(request.previous_response_id or "")
        if before is None:
            before = await self._conversation(request, owner)
        prepared = await prepare_request(
            request, before, items, self._settings, self._registry, owner
        )
        generation = replace(prepared.generation, owner=owner)
        return before, items, replace(prepared, generation=generation)

    async def count_input(self, request: CreateResponseRequest, owner: str) -> int:
        """Return how many tokens the prompt of a request has."""
        _, _, prepared = await self._prepare(request, owner, ResponseObject(request))
        lay_out = self._runner.builder.lay_out
        return len((await anyio.to_thread.run_sync(lay_out, prepared.generation)).tokens)

    async def compact(self, request: CreateResponseRequest, owner: str) -> Json:
        """Return a conversation in fewer tokens."""
        response = ResponseObject(request)
        before, items, prepared = await self._prepare(request, owner, response)
        return await compact(self._runner, prepared.generation, [*before, *items], response)

    async def _first_turn(
        self, request: CreateResponseRequest, generation: GenerationRequest
    ) -> PreparedTurn:
        builder = self._runner.builder
        if request.truncation == "auto":
            return await build_truncated(builder, generation)
        return await builder.build(generation)

    def _new_run(  # noqa: PLR0913 - here the parts of a response meet
        self,
        request: CreateResponseRequest,
        owner: str,
        acquired: IdempotentRequest,
        seconds: float,
        before: list[Json],
        prepared: PreparedRequest,
        builder: ResponseEventBuilder,
    ) -> ToolRun:
        async def record(result: ToolResult) -> None:
            await acquired.record(result)
            if builder.ended:
                builder.set_result(result)  # of a write that outlived its response
                await self._maker.store_end(owner, request, builder.body, builder.events)

        own_tools = frozenset(self._registry.tools)
        run = self._registry.new_run(
            acquired.run_id,
            seconds,
            prepared.server_tools.guests,
            principal=owner,
            record=record,
            memory=acquired.memory,
            max_tool_calls=request.max_tool_calls,
            done_before=succeeded_tools(before, own_tools, self._registry.servers),
        )
        acquired.wait_for(run)
        return run

    async def stream(self, response: InProgressResponse) -> AsyncGenerator[Json]:
        """Make the response, and yield its events to the last, which tells of a failure too."""
        sent = 0
        try:
            async with aclosing(self._maker.make(response)) as events:
                async for event in events:
                    sent += 1
                    yield event
        except APIError:
            for event in response.events[sent:]:
                yield event
        finally:
            self._in_progress.pop(response.id, None)

    async def run(self, response: InProgressResponse) -> Json:
        """Make the response and return it."""
        try:
            async with aclosing(self._maker.make(response)) as events:
                async for _ in events:
                    pass
        finally:
            self._in_progress.pop(response.id, None)
        return response.builder.body

    async def run_in_background(self, response: InProgressResponse, seat: ExitStack) -> None:
        """Make the response for no client; it holds its seat until it is made."""
        with seat, response.scope, background_span(), suppress(APIError):
            await self.run(response)  # a failure stands in the response

    async def retrieve(self, owner: str, response_id: str) -> Json:
        """Return a response, made or being made."""
        response = self._own(owner, response_id)
        if response:
            return response.builder.body
        return (await self._stored(owner, response_id)).body

    async def stream_events(self, owner: str, response_id: str, after: int) -> AsyncGenerator[Json]:
        """Yield the events of a response from behind number `after` on, to its end."""
        response = self._own(owner, response_id)
        if response is None:
            for event in await self._stored_events(owner, response_id, after):
                yield event
            return
        index = after + 1
        while True:
            while index < len(response.events):
                yield response.events[index]
                index += 1
            if response.over:
                return
            await response.wait_change()

    async def _stored_events(self, owner: str, response_id: str, after: int) -> list[Json]:
        stored = await self._stored(owner, response_id)
        if stored.running:
            message = "Another server makes this response: retrieve it without 'stream'."
            raise BadRequestError(message, "stream")
        if stored.events:
            return stored.events[after + 1 :]
        return [terminal_event(stored.body, after + 1)]  # its events went with the process

    async def input_items(self, owner: str, response_id: str) -> list[Json]:
        """Return the items of a response's input."""
        return (await self._stored(owner, response_id)).input

    async def delete(self, owner: str, response_id: str) -> Json:
        """Delete a response."""
        response = self._own(owner, response_id)
        if response:
            del self._in_progress[response_id]
            response.scope.cancel()
        if not await self._store.responses.delete(owner, response_id):
            raise _not_found(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    async def cancel(self, owner: str, response_id: str) -> Json:
        """Stop a response that is made in the background."""
        response = self._own(owner, response_id)
        if response is None:
            return (await self._stored(owner, response_id)).body
        if not response.parts.request.background:
            raise BadRequestError("Cannot cancel a synchronous response.", "response_id")
        response.scope.cancel()
        await response.wait_over()
        return response.builder.body

    def _own(self, owner: str, response_id: str) -> InProgressResponse | None:
        """Return a response of this owner that is being made."""
        response = self._in_progress.get(response_id)
        return response if response and response.parts.owner == owner else None

    async def _conversation(self, request: CreateResponseRequest, owner: str) -> list[Json]:
        """Return the items of the conversation that a request continues."""
        earlier = request.previous_response_id
        if earlier is None:
            return []
        in_progress = self._in_progress.get(earlier)
        if in_progress and in_progress.builder.ended:
            await in_progress.wait_over()
        stored = await self._store.responses.get(owner, earlier)
        named = f"Previous response with id '{earlier[:MAX_QUOTED]}'"
        param = "previous_response_id"
        if stored is None:
            code = "previous_response_not_found"
            raise BadRequestError(f"{named} not found.", param, code)
        if stored.running:
            raise BadRequestError(f"{named} is still being made.", param, "invalid_value")
        return [*stored.history, *({**item, SERVER_MADE: True} for item in stored.body["output"])]

    async def _stored(self, owner: str, response_id: str) -> StoredResponse:
        stored = await self._store.responses.get(owner, response_id)
        if stored is None:
            raise _not_found(response_id)
        return stored


def _not_found(response_id: str) -> NotFoundError:
    message = f"Response with id '{response_id[:MAX_QUOTED]}' not found."
    return NotFoundError(message, "response_id")
