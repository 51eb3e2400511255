"""One turn of the model: a question, the engine's pieces, the steps of a reply."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from falsework.server.api.chat.objects import Usage, new_id
from falsework.server.api.chat.request import GenerationRequest
from falsework.server.engines.base import Engine, OutputDelta
from falsework.server.errors import InternalServerError
from falsework.server.generation.admission import AdmissionController
from falsework.server.generation.choice import ChoiceDelta, ChoiceProcessor
from falsework.server.generation.turn import PreparedTurn, TurnBuilder
from falsework.server.generation.turn_timer import TurnTimer, time_turn
from falsework.server.observability import telemetry
from falsework.server.observability.request_metrics import RequestMetrics


@dataclass(frozen=True)
class TurnRunner:
    """Answers questions with one engine and one model's scaffold."""

    engine: Engine
    scaffold: TurnBuilder
    admission: AdmissionController

    async def stream(
        self, question: GenerationRequest, watch: RequestMetrics, *, half_calls: bool = False
    ) -> AsyncGenerator[ChoiceDelta | Usage]:
        """Tell the steps of a reply, then its usage; closing it frees the engine.

        `half_calls` tells calls as they are decoded; otherwise once they are complete.
        """
        watch.turns += 1
        turn = await self.scaffold.build(question)
        request_id = new_id("turn-")
        pieces = self.engine.generate(turn.prompt, turn.sampling, turn.constraint, request_id)
        choices = [
            ChoiceProcessor(
                turn.reader(), question.stop, named=question.named, half_calls=half_calls
            )
            for _ in range(turn.sampling.n)
        ]
        with time_turn(question, watch) as clock:
            async with aclosing(
                _tell(choices, turn, self.admission.cancel_on_shutdown(pieces), clock)
            ) as steps:
                async for step in steps:
                    clock.on_delta(step)
                    yield step


async def _tell(
    choices: Sequence[ChoiceProcessor],
    turn: PreparedTurn,
    pieces: AsyncGenerator[OutputDelta],
    clock: TurnTimer,
) -> AsyncGenerator[ChoiceDelta | Usage]:
    cached = 0
    async with aclosing(pieces):
        async for piece in pieces:
            clock.on_output(piece, thinking=choices[piece.choice].in_reasoning)
            cached = max(cached, piece.cached_tokens)
            if not choices[piece.choice].finished:
                yield choices[piece.choice].process(piece)
            if all(choice.finished for choice in choices):
                break
    if not all(choice.finished for choice in choices):
        raise InternalServerError("The engine ended before the reply did.", code="engine_error")
    reasoning = sum(choice.reasoning_tokens for choice in choices)
    telemetry.REASONING_TOKENS.inc(reasoning)
    yield Usage(
        prompt=len(turn.prompt) - len(turn.opening.tokens),
        completion=sum(len(turn.opening.tokens) + choice.tokens for choice in choices),
        cached=cached,
        reasoning=reasoning,
    )
