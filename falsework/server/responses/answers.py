"""Responses: made, kept, taken up again, told to whoever asks for them."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing

import anyio

from falsework.runtime.faults import Fault
from falsework.runtime.outcomes import Outcome
from falsework.runtime.toolbox import Toolbox
from falsework.runtime.tools import Asked
from falsework.server.chat import Chat
from falsework.server.choices import Step
from falsework.server.keyed import Claim
from falsework.server.records import Records, StoredResponse
from falsework.server.refusals import BadRequest, NotFound, Refusal
from falsework.server.replies import Json, Usage
from falsework.server.responses.items import approvals, full_name, listed, succeeded
from falsework.server.responses.lives import Live, listing, with_id
from falsework.server.responses.objects import ResponseObject
from falsework.server.responses.questions import wanted
from falsework.server.responses.speech import Speech
from falsework.server.responses.wire import ResponseRequest
from falsework.server.rounds import Called, Calling, Rounds, Told, Waiting
from falsework.server.settings import Settings
from falsework.server.streams import error_body
from falsework.server.watching.watches import Watch, watched


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
        items = [with_id(item) for item in request.input or []]
        before = await self._before(request, owner)
        history = [*before, *items]
        want = await wanted(request, history, self._settings, self._toolbox)
        await self._chat.scaffold.prepare(want.question)  # what can't be said is refused here
        response = ResponseObject(request)
        logprobs = want.question.sampling.logprobs is not None
        speech = Speech(response, want.served.labels, logprobs=logprobs)

        run = self._toolbox.run(
            claim.run_id, seconds, want.served.guests, principal=owner,
            max_tool_calls=request.max_tool_calls,
            done_before=succeeded(before, frozenset(self._toolbox.tools)),
        )  # fmt: skip
        claim.take(run)
        watch = Watch(request.model, "responses", bool(request.stream))
        live = Live(owner, response, items, history, speech, run, watch, want, approvals(history))
        if request.background:
            response.status = "queued"
        if request.store is False:
            claim.briefly()
        else:
            claim.response_id = response.id
        await self._keep(live, running=True)
        self._live[response.id] = live
        return live

    async def told(self, live: Live) -> AsyncGenerator[Json]:
        """Make the response, event by event."""
        response, speech = live.response, live.speech
        response.status = "in_progress"
        try:
            for event in speech.begin():
                yield live.add(event)
            async with aclosing(watched(self._spoken(live), live.watch)) as spoken:
                async for event in spoken:
                    yield live.add(event)
            for event in speech.end():
                yield live.add(event)
        except Refusal as refusal:
            response.status, error = "failed", error_body(refusal)["error"]
            response.error = {"code": error["code"] or "server_error", "message": error["message"]}
            live.add(speech.fail(error))
            raise
        finally:
            if response.status == "in_progress":
                live.give_up()
            with anyio.CancelScope(shield=True):
                await self._over(live)

    async def whole(self, live: Live) -> Json:
        """Make the response and return it."""
        async with aclosing(self.told(live)) as told:
            async for _ in told:
                pass
        return live.response.body()

    async def in_background(self, live: Live, seat: ExitStack) -> None:
        """Make the response for nobody yet; it holds its seat until it is made."""
        with seat, live.scope:
            try:
                await self.whole(live)
            except Refusal:
                return  # it stands in the response

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
            for event in (await self._stored(owner, response_id)).events[after + 1 :]:
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
            live.deleted = True
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
        while not live.over:
            await live.grown.wait()
        return live.response.body()

    async def _spoken(self, live: Live) -> AsyncGenerator[Json]:
        response, speech, want = live.response, live.speech, live.want
        for label in dict.fromkeys(want.served.labels.values()):
            if label not in listed(live.history):
                for event in speech.lists(label, listing(label, want)):
                    yield event
        async for event in self._approved(live):
            yield event
        question = want.question
        if response.output:
            again = await wanted(
                response.request, [*live.history, *response.output], self._settings, self._toolbox
            )
            question = again.question
        names = want.served.names
        rounds = Rounds(self._chat, live.run, live.watch, names, lambda asked: _waits(asked, live))
        async with aclosing(rounds.told(question)) as steps:
            async for step in steps:
                for event in self._speak(step, live):
                    yield event
                if isinstance(step, Calling | Called):
                    await self._keep(live, running=True)
        if names:
            response.runtime = live.run.told()

    def _speak(self, step: Told, live: Live) -> list[Json]:
        speech, response = live.speech, live.response
        match step:
            case Usage():
                response.usage = step
                return []
            case Calling():
                return list(speech.calling(step.calls))
            case Called():
                return list(speech.called(step.outcomes))
            case Waiting():
                return list(speech.waits(step.calls))
            case Step():
                spoken = [
                    told for event in step.events for told in speech.hears(event, step.logprobs)
                ]
                if step.finish:
                    cut = step.finish == "length"
                    response.status = "incomplete" if cut else "completed"
                    response.incomplete = "max_output_tokens" if cut else ""
                return spoken

    async def _approved(self, live: Live) -> AsyncGenerator[Json]:
        """Run the calls that the client has approved; tell the model of those it hasn't."""
        names = frozenset(live.run.tools)
        for said in live.approvals:
            request = said.request
            asked = Asked(request["id"], full_name(request, names), request["arguments"])
            for event in live.speech.calling([asked], {asked.id: request["id"]}):
                yield event
            if said.approved:
                outcomes = await live.run.call([asked], frozenset({asked.id}))
            else:
                fault = Fault(
                    "not_allowed", f"The user did not approve this call. {said.reason}".strip()
                )
                outcomes = [Outcome(asked.id, asked.name, asked.arguments, fault=fault)]
            for event in live.speech.called(outcomes):
                yield event
            await self._keep(live, running=True)

    async def _before(self, request: ResponseRequest, owner: str) -> Sequence[Json]:
        earlier = request.previous_response_id
        if earlier is None:
            return []
        stored = await self._records.response(owner, earlier)
        if stored is None:
            raise BadRequest(
                f"Previous response with id '{earlier[:100]}' not found.",
                "previous_response_id",
                "previous_response_not_found",
            )
        return stored.history

    async def _stored(self, owner: str, response_id: str) -> StoredResponse:
        stored = await self._records.response(owner, response_id)
        if stored is None:
            raise _not_found(response_id)
        return stored

    async def _keep(self, live: Live, *, running: bool) -> None:
        if live.deleted or live.response.request.store is False:
            return
        body = live.response.body()
        history = [*live.history, *body["output"]]
        events = [] if running else live.events
        await self._records.keep(live.owner, body, live.items, history, events, running=running)

    async def _over(self, live: Live) -> None:
        await self._keep(live, running=False)
        live.over = True
        live.grown.set()
        self._live.pop(live.response.id, None)


def _not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id[:100]}' not found.", "response_id")


def _waits(asked: Asked, live: Live) -> bool:
    """Tell whether a call needs the client's approval: by its request, or by the tools file."""
    if asked.name in live.want.served.approval:
        return True
    tool = live.run.tools[asked.name]
    try:
        return tool.waits_for_approval(tool.read(asked.arguments))
    except Fault:
        return False  # its arguments are wrong, which the run tells the model
