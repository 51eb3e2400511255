"""One turn of the model: from the request to the deltas of its reply."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from anyio import CancelScope

from falsework.server.engines.base import Engine, OutputDelta
from falsework.server.errors import InternalServerError, ShuttingDown
from falsework.server.generation.admission import AdmissionController
from falsework.server.generation.choice import ChoiceDelta, ChoiceProcessor
from falsework.server.generation.output_checks import OutputChecks
from falsework.server.generation.request import GenerationRequest
from falsework.server.generation.turn import PreparedTurn, TurnBuilder
from falsework.server.generation.turn_timer import time_turn
from falsework.server.generation.usage import Usage
from falsework.server.ids import new_id
from falsework.server.observability import telemetry
from falsework.server.observability.request_metrics import RequestMetrics


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
    ) -> AsyncGenerator[ChoiceDelta | Usage]:
        """Yield the deltas of a reply, then its usage; closing it frees the engine.

        `half_calls` yields calls as they are decoded; otherwise once they are complete. `turn` is
        the request's, where it was built already.
        """
        metrics.turns += 1
        if turn is None or turn.request is not request:
            turn = await self.builder.build(request)
        choices = [
            ChoiceProcessor(
                turn.reader(),
                request.stop,
                named=request.named,
                half_calls=half_calls and not turn.checks,
                said=turn.opening.text,
            )
            for _ in range(turn.sampling.n)
        ]
        checks = OutputChecks(turn, self.builder.constraints, self.builder.checks.attempts)
        redone: dict[int, PreparedTurn] = {}
        wait = _ShutdownWait()
        cached = 0
        with time_turn(request, metrics) as timer, self.admission.cancel_at_shutdown(wait.cancel):
            part, only = turn, None
            while True:
                # The engine's contract is that closing it aborts, so it can be closed: a generator.
                async with aclosing(self._generate(part)) as pieces:
                    while (piece := await wait.next(pieces)) is not None:
                        number = piece.choice if only is None else only
                        choice = choices[number]
                        cached = max(cached, piece.cached_tokens)
                        if not choice.finished and number not in redone:
                            delta = replace(choice.process(piece), choice=number)
                            if turn.checks:
                                delta, again = await checks.judge(choice, delta)
                                redone |= {number: again} if again else {}
                            timer.on_delta(delta, piece.timings)
                            yield delta
                        if _is_over(choices, redone, only):
                            break
                if not redone:
                    break
                only, part = redone.popitem()
            if not all(choice.finished for choice in choices):
                message = "The engine ended before the reply did."
                raise InternalServerError(message, code="engine_error")
            usage = _usage(turn, choices, cached)
            timer.on_usage(usage)
        yield usage

    def _generate(self, turn: PreparedTurn) -> AsyncGenerator[OutputDelta]:
        return self.engine.generate(turn.prompt, turn.sampling, turn.constraint, new_id("turn-"))


def _is_over(
    choices: Sequence[ChoiceProcessor], redone: Mapping[int, PreparedTurn], only: int | None
) -> bool:
    """Tell whether each choice that is being decoded has ended, or is to be decoded again."""
    decoded = range(len(choices)) if only is None else [only]
    return all(choices[number].finished or number in redone for number in decoded)


class _ShutdownWait:
    """Waits for output; the end of the drain period ends the wait with an error."""

    def __init__(self) -> None:
        self._scope = CancelScope()
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._scope.cancel()

    async def next(self, outputs: AsyncIterator[OutputDelta]) -> OutputDelta | None:
        with CancelScope() as self._scope:
            if not self._cancelled:
                return await anext(outputs, None)
        raise ShuttingDown("This server shut down before the reply was finished.")


def _usage(turn: PreparedTurn, choices: list[ChoiceProcessor], cached: int) -> Usage:
    reasoning = sum(choice.reasoning_tokens for choice in choices)
    telemetry.REASONING_TOKENS.inc(reasoning)
    forced = len(turn.opening.tokens)
    return Usage(
        prompt=len(turn.prompt) - forced,
        completion=sum(forced + choice.tokens for choice in choices),
        cached=cached,
        reasoning=reasoning,
    )
