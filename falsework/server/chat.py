"""One turn of the model: a question, the engine's pieces, the steps of a reply."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import Span

from falsework.runtime import telemetry
from falsework.server.choices import Choice, Step
from falsework.server.desk import Desk
from falsework.server.engines.base import Engine, Piece, Timings
from falsework.server.questions import Question
from falsework.server.refusals import Broken
from falsework.server.replies import Usage, new_id
from falsework.server.turns import Scaffold, Turn
from falsework.server.watching.watches import Watch


@dataclass(frozen=True)
class Chat:
    """Answers questions with one engine and one model's scaffold."""

    engine: Engine
    scaffold: Scaffold
    desk: Desk

    async def told(
        self, question: Question, watch: Watch, *, half_calls: bool = False
    ) -> AsyncGenerator[Step | Usage]:
        """Tell the steps of a reply, then its usage; closing it frees the engine.

        `half_calls` tells calls as they are decoded; otherwise once they are complete.
        """
        watch.turns += 1
        turn = await self.scaffold.prepare(question)
        request_id = new_id("turn-")
        pieces = self.engine.generate(turn.prompt, turn.sampling, turn.constraint, request_id)
        choices = [
            Choice(turn.reader(), question.stop, named=question.named, half_calls=half_calls)
            for _ in range(turn.sampling.n)
        ]
        name = telemetry.CHAT.format(model=question.model)
        attributes = {telemetry.OPERATION: "chat", telemetry.REQUEST_MODEL: question.model}
        # Not the current span: a generator's steps run in whatever context asks for them.
        span = telemetry.TRACER.start_span(name, attributes=attributes)
        clock = _Clock(watch, span)
        try:
            async with aclosing(_tell(choices, turn, self.desk.draw(pieces), clock)) as steps:
                async for step in steps:
                    yield step
        finally:
            clock.end()
            span.end()


class _Clock:
    """Divides the time of one turn into its phases."""

    def __init__(self, watch: Watch, span: Span) -> None:
        self._watch = watch
        self._span = span
        self._began = time.monotonic()
        self._began_ns = time.time_ns()
        self._first = 0.0
        self._thought = 0.0
        self._known: Timings | None = None

    def hear(self, piece: Piece, *, thinking: bool) -> None:
        """Notice a piece."""
        now = time.monotonic()
        if not self._first:
            self._first = now
            self._watch.heard()
            self._span.add_event("first token")
        if thinking:
            self._thought = now
        self._known = piece.timings or self._known

    def end(self) -> None:
        """Tell the phases."""
        now = time.monotonic()
        first = self._first or now
        queue = min(self._known.queue, first - self._began) if self._known else 0.0
        phases = {
            "queue": queue,
            "prefill": first - self._began - queue,
            "think": max(0.0, self._thought - first),
            "decode": now - max(first, self._thought),
        }
        begins = self._began_ns
        within = trace.set_span_in_context(self._span)
        for phase, seconds in phases.items():
            self._watch.spent(phase, seconds)
            ends = begins + int(seconds * 1e9)
            if ends > begins:
                telemetry.TRACER.start_span(phase, within, start_time=begins).end(ends)
            begins = ends


async def _tell(
    choices: Sequence[Choice], turn: Turn, pieces: AsyncGenerator[Piece], clock: _Clock
) -> AsyncGenerator[Step | Usage]:
    cached = 0
    async with aclosing(pieces):
        async for piece in pieces:
            clock.hear(piece, thinking=choices[piece.choice].thinking)
            cached = max(cached, piece.cached_tokens)
            if not choices[piece.choice].finished:
                yield choices[piece.choice].hear(piece)
            if all(choice.finished for choice in choices):
                break
    if not all(choice.finished for choice in choices):
        raise Broken("The engine ended before the reply did.", code="engine_error")
    reasoning = sum(choice.reasoning_tokens for choice in choices)
    telemetry.REASONING_TOKENS.inc(reasoning)
    yield Usage(
        prompt=len(turn.prompt) - len(turn.opening.tokens),
        completion=sum(len(turn.opening.tokens) + choice.tokens for choice in choices),
        cached=cached,
        reasoning=reasoning,
    )
