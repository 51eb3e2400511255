"""Responses: made, kept, taken up again, told to whoever asks for them."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, suppress

import anyio
import structlog

from falsework.runtime import telemetry
from falsework.runtime.outcomes import Outcome
from falsework.runtime.toolbox import Toolbox
from falsework.server.chat import Chat
from falsework.server.keyed import Claim
from falsework.server.records import Records, StoredResponse
from falsework.server.refusals import BadRequest, Broken, NotFound, Refusal
from falsework.server.replies import Json
from falsework.server.responses.approvals import approvals, seal, taken
from falsework.server.responses.items import OURS, succeeded
from falsework.server.responses.lives import Live, kept
from falsework.server.responses.making import made
from falsework.server.responses.objects import ResponseObject
from falsework.server.responses.questions import Wanted, respelled, wanted
from falsework.server.responses.references import resolved
from falsework.server.responses.speech import Speech, closing
from falsework.server.responses.wire import ResponseRequest
from falsework.server.settings import Settings
from falsework.server.watching.traces import background_span
from falsework.server.watching.watches import Watch, watched

FAILED = "The server failed while it made the response."

log = structlog.get_logger("falsework")


class Answers:
    """Makes and keeps responses."""

    def __init__(self, chat: Chat, settings: Settings, toolbox: Toolbox, records: Records) -> None:
        self._chat = chat
        self._settings = settings
        self._toolbox = toolbox
        self._records = records
        self._live: dict[str, Live] = {}

    async def begin(
        self, request: ResponseRequest, owner: str, claim: Claim, seconds: float
    ) -> Live:
        """Return a response that can be made; refuse the request before anything is said."""
        response = ResponseObject(request)
        said = await resolved(request.input or [], owner, self._records)
        items = [kept(item, response) for item in said]
        before = await self._before(request, owner)
        want = await wanted(request, before, items, self._settings, self._toolbox)
        with respelled():
            await self._chat.scaffold.prepare(want.question)  # what can't be said is refused here
        answers = approvals(before, items, want.served.names)
        live = self._begun(response, owner, claim, seconds, before, items, want)
        live.approvals = await taken(answers, owner, live.run, self._records)
        if request.background:
            live.response.status = "queued"
        if request.store is False:
            claim.briefly()
        else:
            claim.response_id = live.response.id
            body = live.response.body()
            await self._records.keep(owner, body, items, live.history, running=True)
        self._live[live.response.id] = live
        return live

    def _begun(  # noqa: PLR0913 - here a response's parts meet
        self, response: ResponseObject, owner: str, claim: Claim, seconds: float,
        before: list[Json], items: list[Json], want: Wanted,
    ) -> Live:  # fmt: skip
        request = response.request
        run = self._toolbox.run(
            claim.run_id, seconds, want.served.guests, principal=owner,
            max_tool_calls=request.max_tool_calls,
            done_before=succeeded(before, frozenset(self._toolbox.tools), self._toolbox.servers),
        )  # fmt: skip
        logprobs = want.question.sampling.logprobs is not None
        speech = Speech(response, want.served.labels, logprobs=logprobs)
        background = bool(request.background)
        watch = Watch(request.model, "responses", bool(request.stream), background=background)
        live = Live(owner, response, [*before, *items], speech, run, watch, want)
        claim.take(run)
        claimed = run.record

        async def record(outcome: Outcome) -> None:
            await claimed(outcome)
            if speech.ended:
                speech.put(outcome)  # a write that outlived its response
                await self._keep(live, running=False)

        run.record = record
        return live

    async def told(self, live: Live) -> AsyncGenerator[Json]:
        """Make the response, event by event; it is kept before its end is told."""
        live.response.status = "in_progress"
        try:
            for event in live.speech.begin():
                live.grow()
                yield event
            making = made(live, self._chat, self._progress, self._ask)
            async with aclosing(watched(making, live.watch)) as told:
                async for event in told:
                    live.grow()
                    yield event
            ending = list(live.speech.end())
        except Refusal as refusal:
            said = len(live.events)
            live.fail(refusal)
            for event in live.events[said:-1]:
                yield event
            raise  # whoever sends the events tells the last one
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            live.give_up()
            raise
        finally:
            if not live.speech.ended:
                live.fail(Broken(FAILED))
            with anyio.CancelScope(shield=True):
                await self._over(live)
        for event in ending:
            yield event

    async def whole(self, live: Live) -> Json:
        """Make the response and return it."""
        async with aclosing(self.told(live)) as told:
            async for _ in told:
                pass
        return live.response.body()

    async def in_background(self, live: Live, seat: ExitStack) -> None:
        """Make the response for nobody yet; it holds its seat until it is made."""
        with seat, live.scope, background_span():
            try:
                await self.whole(live)
            except Refusal:
                return  # it stands in the response
            except Exception:
                # The outermost handler of a task that nobody waits for.
                log.exception(telemetry.UNMADE_LINE)
                live.fail(Broken(FAILED))
                with suppress(Exception):  # what failed may be the database
                    await self._keep(live, running=False)

    async def retrieve(self, owner: str, response_id: str) -> Json:
        """Return a response, made or being made."""
        live = self._live.get(response_id)
        if live and live.owner == owner:
            return live.response.body()
        return (await self._stored(owner, response_id)).body

    async def events(self, owner: str, response_id: str, after: int) -> AsyncGenerator[Json]:
        """Tell the events of a response from behind number `after` on, to its end."""
        live = self._live.get(response_id)
        if not (live and live.owner == owner):
            stored = await self._stored(owner, response_id)
            if stored.running:
                message = "Another server makes this response: retrieve it without 'stream'."
                raise BadRequest(message, "stream")
            cut_off = [closing(stored.body, after + 1)]  # its events went with the process
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

    async def items(self, owner: str, response_id: str) -> list[Json]:
        """Return the items that a response was asked with."""
        return (await self._stored(owner, response_id)).input

    async def delete(self, owner: str, response_id: str) -> Json:
        """Delete a response."""
        live = self._live.get(response_id)
        if live and live.owner == owner:
            del self._live[response_id]
            live.scope.cancel()
        if not await self._records.delete(owner, response_id):
            raise _not_found(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    async def cancel(self, owner: str, response_id: str) -> Json:
        """Stop a response that is made in the background."""
        live = self._live.get(response_id)
        if not (live and live.owner == owner):
            return (await self._stored(owner, response_id)).body
        if not live.response.request.background:
            raise BadRequest("Cannot cancel a synchronous response.", "response_id")
        live.scope.cancel()
        await live.ends()
        return live.response.body()

    async def _before(self, request: ResponseRequest, owner: str) -> list[Json]:
        """Return the items of the conversation that a request goes on with."""
        earlier = request.previous_response_id
        if earlier is None:
            return []
        live = self._live.get(earlier)
        if live and live.speech.ended:
            await live.ends()
        stored = await self._records.response(owner, earlier)
        if stored is None:
            raise BadRequest(
                f"Previous response with id '{earlier[:100]}' not found.",
                "previous_response_id",
                "previous_response_not_found",
            )
        if stored.running:
            message = f"Previous response with id '{earlier[:100]}' is still being made."
            raise BadRequest(message, "previous_response_id", "invalid_value")
        return [*stored.history, *({**item, OURS: True} for item in stored.body["output"])]

    async def _stored(self, owner: str, response_id: str) -> StoredResponse:
        stored = await self._records.response(owner, response_id)
        if stored is None:
            raise _not_found(response_id)
        return stored

    async def _ask(self, live: Live, item: Json) -> None:
        await self._records.ask_approval(live.owner, item["id"], seal(item))

    async def _progress(self, live: Live) -> None:
        await self._keep(live, running=True)

    async def _keep(self, live: Live, *, running: bool) -> None:
        if live.response.request.store is False:
            return
        async with live.keeping:
            events = [] if running else live.events
            body = live.response.body()
            await self._records.change(live.owner, body, events, running=running)

    async def _over(self, live: Live) -> None:
        try:
            await self._keep(live, running=False)
        finally:
            live.over = True
            live.grow()
            self._live.pop(live.response.id, None)


def _not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id[:100]}' not found.", "response_id")
