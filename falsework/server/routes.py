"""What the routes of chat completions and responses do with a request, from body to reply."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import replace
from typing import Any

from anyio.abc import TaskGroup
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from falsework.runtime.toolbox import Toolbox
from falsework.server import wire
from falsework.server.chat import Chat
from falsework.server.completions import streamed, whole
from falsework.server.deadlines import seconds_of
from falsework.server.door import read
from falsework.server.keyed import Claim, Keys
from falsework.server.questions import Question, ask
from falsework.server.records import DELETED, Records
from falsework.server.refusals import BadRequest, NotFound
from falsework.server.replies import Envelope, Json
from falsework.server.responses import wire as responses_wire
from falsework.server.responses.answers import Answers
from falsework.server.responses.lives import Live, page
from falsework.server.rounds import Rounds, Told
from falsework.server.served import Served, served
from falsework.server.settings import Settings
from falsework.server.streams import open_stream, unless_gone
from falsework.server.watching.watches import Watch, watched

REPLAYED = {"idempotent-replayed": "true"}


class Routes:
    """The two ways to ask; made once the tools and the database are open."""

    def __init__(  # noqa: PLR0913 - here the parts meet
        self,
        settings: Settings,
        chat: Chat,
        toolbox: Toolbox,
        records: Records,
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
        self._keys = Keys(records)
        self._answers = Answers(chat, settings, toolbox, records)

    async def complete(self, request: Request) -> Response:
        """Answer a chat request."""
        body = await read(request, self._settings.max_body_bytes)
        asked = wire.parse(body)
        self.check_model(asked.model)
        ours = await served(asked.tools or [], self._toolbox)
        if ours.approval:
            message = "Only /v1/responses can ask for approval: set 'require_approval' to 'never'."
            raise BadRequest(message, "tools", "invalid_value")
        question = ask(asked, self._settings, ours)
        if not ours.by_position and "idempotency-key" not in request.headers:
            return await self._completed(request, question, ours, None)
        async with AsyncExitStack() as stack:
            claimed = self._keys.claim(request, body, owner_of(request))
            claim = await stack.enter_async_context(claimed)
            if claim.reply is not None:
                return await self._replayed(request, claim.reply)
            return await self._completed(request, question, ours, claim, stack)

    async def respond(self, request: Request) -> Response:
        """Answer a request for a response."""
        body = await read(request, self._settings.max_body_bytes)
        asked = responses_wire.parse(body)
        self.check_model(asked.model)
        owner = owner_of(request)
        async with AsyncExitStack() as stack:
            claim = await stack.enter_async_context(self._keys.claim(request, body, owner))
            if claim.reply is not None:
                return await self._replayed(request, claim.reply)
            seconds = seconds_of(request.headers, alone=bool(asked.background))
            live = await self._answers.begin(asked, owner, claim, seconds)
            if asked.background:
                return await self._in_background(request, live, claim)
            if asked.stream:
                told = _kept(self._answers.told(live), claim, stack.pop_all())
                return await open_stream(request, told, live.fail)
            reply = await unless_gone(request, self._answers.whole(live))
            claim.reply = {"json": reply}
            return JSONResponse(reply)

    async def _in_background(self, request: Request, live: Live, claim: Claim) -> Response:
        seat: ExitStack = request.state.seat.pop_all()  # until the response is made
        self._tasks.start_soon(self._answers.in_background, live, seat)
        if live.response.request.stream:
            claim.reply = {"response": live.response.id}
            return await self.events(request, live.response.id, -1)
        claim.reply = {"json": live.response.body()}
        return JSONResponse(claim.reply["json"])

    async def events(self, request: Request, response_id: str, after: int) -> Response:
        """Stream the events of a response from behind number `after` on."""
        events = self._answers.events(owner_of(request), response_id, after)
        return await open_stream(request, events)

    async def retrieve(self, request: Request, response_id: str) -> Response:
        """Return a response, or its events again."""
        owner, query = owner_of(request), request.query_params
        if query.get("stream") != "true":
            return JSONResponse(await self._answers.retrieve(owner, response_id))
        after = query.get("starting_after", "")
        number = int(after) if after.isdecimal() else -1
        return await self.events(request, response_id, number)

    async def delete(self, request: Request, response_id: str) -> Json:
        """Delete a response."""
        return await self._answers.delete(owner_of(request), response_id)

    async def cancel(self, request: Request, response_id: str) -> Json:
        """Stop a response that is made in the background."""
        return await self._answers.cancel(owner_of(request), response_id)

    async def input_items(self, request: Request, response_id: str) -> Json:
        """Return the items that a response was asked with."""
        items = await self._answers.items(owner_of(request), response_id)
        return page(items, request.query_params)

    def check_model(self, name: str) -> None:
        """Refuse a model that isn't served."""
        if name != self._settings.model_id:
            raise NotFound(
                f"The model '{name[:200]}' does not exist. This server has "
                f"'{self._settings.model_id}'.",
                "model",
                "model_not_found",
            )

    async def _completed(
        self,
        request: Request,
        question: Question,
        ours: Served,
        claim: Claim | None,
        stack: AsyncExitStack | None = None,
    ) -> Response:
        envelope = Envelope(question, self._fingerprint)
        watch = Watch(question.model, "chat", question.stream)
        half_calls = question.stream and self._settings.stream_calls == "as_decoded"
        told: AsyncGenerator[Told] = self._chat.told(question, watch, half_calls=half_calls)
        if ours.by_position and claim:
            run = self._toolbox.run(
                claim.run_id, seconds_of(request.headers), ours.guests, principal=owner_of(request)
            )
            claim.take(run)
            envelope = replace(envelope, runtime=run.told)
            told = Rounds(self._chat, run, watch, ours.names).told(question)
        told = watched(told, watch)
        if question.stream:
            chunks = streamed(told, envelope)
            if claim and stack:
                chunks = _kept(chunks, claim, stack.pop_all())
            return await open_stream(request, chunks)
        reply = await unless_gone(request, whole(told, envelope))
        if claim:
            claim.reply = {"json": reply}
        return JSONResponse(reply)

    async def _replayed(self, request: Request, reply: Mapping[str, Any]) -> Response:
        if reply == DELETED:
            raise NotFound("The response to this request was deleted.")
        if "json" in reply:
            return JSONResponse(reply["json"], headers=REPLAYED)
        if "response" in reply:
            response = await self.events(request, reply["response"], -1)
        else:
            response = await open_stream(request, _again(reply["events"]))
        response.headers.update(REPLAYED)
        return response


def owner_of(request: Request) -> str:
    """Return who asks, without telling the key."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    borne = f"{scheme.capitalize()} {key.strip()}"
    return hashlib.sha256(borne.encode()).hexdigest()[:32] if scheme else ""


async def _kept(
    chunks: AsyncGenerator[Json], claim: Claim, stack: AsyncExitStack
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
