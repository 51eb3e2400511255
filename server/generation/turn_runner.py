"""One turn of the model: from the request to the deltas of its reply."""

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from anyio import CancelScope

from falsework.server.engines import Engine, OutputDelta
from falsework.server.errors import InternalServerError, ShuttingDown
from falsework.server.generation.admission import AdmissionController
from falsework.server.generation.choice import ChoiceDelta, ChoiceProcessor
from falsework.server.generation.output_checks import OutputChecks
from falsework.server.generation.request import GenerationRequest
from falsework.server.generation.turn import PreparedTurn, TurnBuilder
from falsework.server.generation.turn_timer import TurnTimer, time_turn
from falsework.server.generation.usage import NO_USAGE, Usage
from falsework.server.ids import new_id
from falsework.server.observability import RequestMetrics, telemetry


@dataclass(frozen=True)
class TurnRunner:
    """Runs turns on one engine."""

    engine: Engine
    builder: TurnBuilder
    admission: AdmissionController

    async def stream(
        self,
        request: GenerationRequest,
        metrics: RequestMetrics,
        *,
        half_calls: bool = False,
        turn: PreparedTurn | None = None,
        deadline: float = math.inf,
    ) -> AsyncGenerator[ChoiceDelta | Usage]:
        """Yield the deltas of a reply, then its usage; closing it frees the engine.

        `half_calls` yields calls as they are decoded; otherwise once they are complete. `turn` is
        the request's, where it was built already. At `deadline`, by the event loop's clock, each
        choice ends as far as it came, with `length`.
        """
        metrics.turns += 1
        turn = await self._build(request, turn, deadline)
        if turn is None:
            for number in range(request.sampling.n):
                yield _cut_off(number)
            yield NO_USAGE
            return
        reply = _Reply(turn, self.builder, half_calls=half_calls)
        wait = _OutputWait(deadline)
        with time_turn(request, metrics) as timer, self.admission.cancel_at_shutdown(wait.cancel):
            async with aclosing(self._decode(reply, wait, timer)) as deltas:
                async for delta in deltas:
                    yield delta
            if wait.expired:
                for delta in await reply.cut():
                    yield delta
            usage = reply.usage()
            timer.on_usage(usage)
        yield usage

    async def _build(
        self, request: GenerationRequest, turn: PreparedTurn | None, deadline: float
    ) -> PreparedTurn | None:
        """Return the request's turn, built now unless it was; None once the deadline has passed."""
        if turn is not None and turn.request is request:
            return turn
        with CancelScope(deadline=deadline):
            return await self.builder.build(request)
        return None

    async def _decode(
        self, reply: "_Reply", wait: "_OutputWait", timer: TurnTimer
    ) -> AsyncGenerator[ChoiceDelta]:
        """Yield the deltas of a reply; a choice that fails its checks is decoded again."""
        part, only = reply.turn, None
        while True:
            # The engine's contract is that closing it aborts, so it can be closed: a generator.
            async with aclosing(self._generate(part)) as pieces:
                while (piece := await wait.next(pieces)) is not None:
                    number = piece.choice if only is None else only
                    delta = await reply.process(number, piece)
                    if delta:
                        timer.on_delta(delta, piece.timings)
                        yield delta
                    if reply.is_over(only):
                        break
            if not reply.redone or wait.expired:
                return
            only, part = reply.redone.popitem()

    def _generate(self, turn: PreparedTurn) -> AsyncGenerator[OutputDelta]:
        return self.engine.generate(turn.prompt, turn.sampling, turn.constraint, new_id("turn-"))


def _cut_off(number: int) -> ChoiceDelta:
    """Return the end of a choice that says nothing more."""
    return ChoiceDelta(number, (), finish="length")


class _Reply:
    """The choices of one turn while they are decoded; `redone` are those to be decoded again."""

    def __init__(self, turn: PreparedTurn, builder: TurnBuilder, *, half_calls: bool) -> None:
        self.turn = turn
        self.redone: dict[int, PreparedTurn] = {}
        self._checks = OutputChecks(turn, builder.constraints, builder.checks.attempts)
        self._cached = 0
        self._choices = [
            ChoiceProcessor(
                turn.reader(),
                turn.request.stop,
                named=turn.request.named,
                half_calls=half_calls and not turn.checks,
                said=turn.opening.text,
                limits=turn.limits,
                schema=turn.form.answer is not None,
            )
            for _ in range(turn.sampling.n)
        ]

    async def process(self, number: int, piece: OutputDelta) -> ChoiceDelta | None:
        """Return what a piece adds to a choice; None where that has ended."""
        choice = self._choices[number]
        self._cached = max(self._cached, piece.cached_tokens)
        if choice.finished or number in self.redone:
            return None
        delta = replace(choice.process(piece), choice=number)
        if self.turn.checks:
            delta, again = await self._checks.judge(choice, delta)
            self.redone |= {number: again} if again else {}
        return delta

    def is_over(self, only: int | None) -> bool:
        """Tell whether each choice that is being decoded has ended, or is to be decoded again."""
        decoded = range(len(self._choices)) if only is None else [only]
        return all(self._choices[number].finished or number in self.redone for number in decoded)

    async def cut(self) -> list[ChoiceDelta]:
        """End the choices that haven't ended, as far as they came: the deadline has passed."""
        self.redone.clear()
        deltas: list[ChoiceDelta] = []
        for number, choice in enumerate(self._choices):
            if not choice.finished:
                piece = OutputDelta(number, "", 0, finish="length")
                delta = await self.process(number, piece)
                kept = delta is not None and number not in self.redone
                deltas.append(delta if delta and kept else _cut_off(number))
                choice.finished = True
        return deltas

    def usage(self) -> Usage:
        """Return the tokens of the reply, which is complete."""
        if not all(choice.finished for choice in self._choices):
            message = "The engine ended before the reply did."
            raise InternalServerError(message, code="engine_error")
        reasoning = sum(choice.reasoning_tokens for choice in self._choices)
        telemetry.REASONING_TOKENS.inc(reasoning)
        forced = len(self.turn.opening.tokens)
        prompt = len(self.turn.prompt) - forced
        return Usage(
            prompt=prompt,
            completion=sum(forced + choice.tokens for choice in self._choices),
            cached=min(self._cached, prompt),  # the opening may be cached, too
            reasoning=reasoning,
        )


class _OutputWait:
    """Waits for output until the deadline; the end of the drain period ends it with an error."""

    def __init__(self, deadline: float) -> None:
        self.expired = False
        self._deadline = deadline
        self._scope = CancelScope()
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._scope.cancel()

    async def next(self, outputs: AsyncIterator[OutputDelta]) -> OutputDelta | None:
        with CancelScope(deadline=self._deadline) as self._scope:
            if not self._cancelled:
                return await anext(outputs, None)
        if not self._cancelled:
            self.expired = True
            return None
        raise ShuttingDown("This server shut down before the reply was finished.")
