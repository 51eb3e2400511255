"""Responses: made, kept, taken up again, told to whoever asks for them."""

from falsework.server.types import Json
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, suppress

import anyio
import structlog


from falsework.server.api.idempotency import IdempotentRequest
from falsework.server.api.responses.approvals import call_digest, consume_approvals, parse_approvals
from falsework.server.api.responses.events import ResponseEventBuilder, terminal_event
from falsework.server.api.responses.item_references import resolve_references
from falsework.server.api.responses.messages import SERVER_MADE, succeeded_tools
from falsework.server.api.responses.object import ResponseObject
from falsework.server.api.responses.request import (
    PreparedRequest,
    prepare_request,
    translate_error_params,
)
from falsework.server.api.responses.runner import run_response
from falsework.server.api.responses.schema import CreateResponseRequest
from falsework.server.api.responses.state import InProgressResponse, normalize_input_item
from falsework.server.errors import APIError, BadRequestError, InternalServerError, NotFoundError
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.observability import telemetry
from falsework.server.observability.request_metrics import RequestMetrics, record_outcome
from falsework.server.observability.tracing import background_span
from falsework.server.settings import Settings
from falsework.server.storage.store import Store, StoredResponse
from falsework.server.tools.registry import ToolRegistry
from falsework.server.tools.results import ToolResult

FAILURE_MESSAGE = "The server failed while it made the response."

log = structlog.get_logger("falsework")


class ResponseService:
    """Makes and keeps responses."""

    def __init__(
        self, chat: TurnRunner, settings: Settings, toolbox: ToolRegistry, records: Store
    ) -> None:
        self._chat = chat
        self._settings = settings
        self._toolbox = toolbox
        self._records = records
        self._live: dict[str, InProgressResponse] = {}

    async def create(
        self, request: CreateResponseRequest, owner: str, claim: IdempotentRequest, seconds: float
    ) -> InProgressResponse:
        """Return a response that can be made; refuse the request before anything is said."""
        response = ResponseObject(request)
        said = await resolve_references(request.input or [], owner, self._records)
        items = [normalize_input_item(item, response) for item in said]
        before = await self._before(request, owner)
        want = await prepare_request(request, before, items, self._settings, self._toolbox)
        with translate_error_params():
            await self._chat.scaffold.build(want.question)  # what can't be said is refused here
        answers = parse_approvals(before, items, want.served.names)
        live = self._begun(response, owner, claim, seconds, before, items, want)
        live.approvals = await consume_approvals(answers, owner, live.run, self._records)
        if request.background:
            live.response.status = "queued"
        if request.store is False:
            claim.keep_for_retries_only()
        else:
            claim.response_id = live.response.id
            body = live.response.to_openai()
            await self._records.save_response(owner, body, items, live.history, running=True)
        self._live[live.response.id] = live
        return live

    def _begun(  # noqa: PLR0913 - here a response's parts meet
        self, response: ResponseObject, owner: str, claim: IdempotentRequest, seconds: float,
        before: list[Json], items: list[Json], want: PreparedRequest,
    ) -> InProgressResponse:  # fmt: skip
        request = response.request
        run = self._toolbox.new_run(
            claim.run_id,
            seconds,
            want.served.guests,
            principal=owner,
            max_tool_calls=request.max_tool_calls,
            done_before=succeeded_tools(
                before, frozenset(self._toolbox.tools), self._toolbox.servers
            ),
        )
        logprobs = want.question.sampling.logprobs is not None
        speech = ResponseEventBuilder(response, want.served.labels, logprobs=logprobs)
        background = bool(request.background)
        watch = RequestMetrics(
            request.model, "responses", bool(request.stream), background=background
        )
        live = InProgressResponse(owner, response, [*before, *items], speech, run, watch, want)
        claim.attach_run(run)
        claimed = run.record

        async def record(outcome: ToolResult) -> None:
            await claimed(outcome)
            if speech.ended:
                speech.store_result(outcome)  # a write that outlived its response
                await self._keep(live, running=False)

        run.record = record
        return live

    async def stream(self, live: InProgressResponse) -> AsyncGenerator[Json]:
        """Make the response, event by event; it is kept before its end is told."""
        live.response.status = "in_progress"
        try:
            for event in live.speech.created():
                live.notify()
                yield event
            making = run_response(live, self._chat, self._progress, self._ask)
            async with aclosing(record_outcome(making, live.watch)) as told:
                async for event in told:
                    live.notify()
                    yield event
            ending = list(live.speech.terminal())
        except APIError as refusal:
            said = len(live.events)
            live.fail(refusal)
            for event in live.events[said:-1]:
                yield event
            raise  # whoever sends the events tells the last one
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            live.abort()
            raise
        finally:
            if not live.speech.ended:
                live.fail(InternalServerError(FAILURE_MESSAGE))
            with anyio.CancelScope(shield=True):
                await self._over(live)
        for event in ending:
            yield event

    async def run(self, live: InProgressResponse) -> Json:
        """Make the response and return it."""
        async with aclosing(self.stream(live)) as told:
            async for _ in told:
                pass
        return live.response.to_openai()

    async def run_in_background(self, live: InProgressResponse, seat: ExitStack) -> None:
        """Make the response for nobody yet; it holds its seat until it is made."""
        with seat, live.scope, background_span():
            try:
                await self.run(live)
            except APIError:
                return  # it stands in the response
            except Exception:
                # The outermost handler of a task that nobody waits for.
                log.exception(telemetry.UNMADE_LINE)
                live.fail(InternalServerError(FAILURE_MESSAGE))
                with suppress(Exception):  # what failed may be the database
                    await self._keep(live, running=False)

    async def retrieve(self, owner: str, response_id: str) -> Json:
        """Return a response, made or being made."""
        live = self._live.get(response_id)
        if live and live.owner == owner:
            return live.response.to_openai()
        return (await self._stored(owner, response_id)).body

    async def stream_events(self, owner: str, response_id: str, after: int) -> AsyncGenerator[Json]:
        """Tell the events of a response from behind number `after` on, to its end."""
        live = self._live.get(response_id)
        if not (live and live.owner == owner):
            stored = await self._stored(owner, response_id)
            if stored.running:
                message = "Another server makes this response: retrieve it without 'stream'."
                raise BadRequestError(message, "stream")
            cut_off = [terminal_event(stored.body, after + 1)]  # its events went with the process
            for event in stored.events[after + 1 :] if stored.events else cut_off:
                yield event
            return
        at = after + 1
        while True:
            grown = live.grown
            while at < len(live.events):
                yield live.events[at]
                at += 1
            if live.over:
                return
            await grown.wait()

    async def input_items(self, owner: str, response_id: str) -> list[Json]:
        """Return the items that a response was asked with."""
        return (await self._stored(owner, response_id)).input

    async def delete(self, owner: str, response_id: str) -> Json:
        """Delete a response."""
        live = self._live.get(response_id)
        if live and live.owner == owner:
            del self._live[response_id]
            live.scope.cancel()
        if not await self._records.delete_response(owner, response_id):
            raise _not_found(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    async def cancel(self, owner: str, response_id: str) -> Json:
        """Stop a response that is made in the background."""
        live = self._live.get(response_id)
        if not (live and live.owner == owner):
            return (await self._stored(owner, response_id)).body
        if not live.response.request.background:
            raise BadRequestError("Cannot cancel a synchronous response.", "response_id")
        live.scope.cancel()
        await live.wait_done()
        return live.response.to_openai()

    async def _before(self, request: CreateResponseRequest, owner: str) -> list[Json]:
        """Return the items of the conversation that a request goes on with."""
        earlier = request.previous_response_id
        if earlier is None:
            return []
        live = self._live.get(earlier)
        if live and live.speech.ended:
            await live.wait_done()
        stored = await self._records.get_response(owner, earlier)
        if stored is None:
            raise BadRequestError(
                f"Previous response with id '{earlier[:100]}' not found.",
                "previous_response_id",
                "previous_response_not_found",
            )
        if stored.running:
            message = f"Previous response with id '{earlier[:100]}' is still being made."
            raise BadRequestError(message, "previous_response_id", "invalid_value")
        return [*stored.history, *({**item, SERVER_MADE: True} for item in stored.body["output"])]

    async def _stored(self, owner: str, response_id: str) -> StoredResponse:
        stored = await self._records.get_response(owner, response_id)
        if stored is None:
            raise _not_found(response_id)
        return stored

    async def _ask(self, live: InProgressResponse, item: Json) -> None:
        await self._records.create_approval(live.owner, item["id"], call_digest(item))

    async def _progress(self, live: InProgressResponse) -> None:
        await self._keep(live, running=True)

    async def _keep(self, live: InProgressResponse, *, running: bool) -> None:
        if live.response.request.store is False:
            return
        async with live.keeping:
            events = [] if running else live.events
            body = live.response.to_openai()
            await self._records.update_response(live.owner, body, events, running=running)

    async def _over(self, live: InProgressResponse) -> None:
        try:
            await self._keep(live, running=False)
        finally:
            live.over = True
            live.notify()
            self._live.pop(live.response.id, None)


def _not_found(response_id: str) -> NotFoundError:
    return NotFoundError(f"Response with id '{response_id[:100]}' not found.", "response_id")
