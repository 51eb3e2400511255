"""One turn of the model: a question, the engine's pieces, the steps of a reply."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from falsework.runtime import telemetry
from falsework.server.choices import Choice, Step
from falsework.server.desk import Desk
from falsework.server.engines.base import Engine, Piece
from falsework.server.questions import Question
from falsework.server.refusals import Broken
from falsework.server.replies import Usage, new_id
from falsework.server.turns import Scaffold, Turn
from falsework.server.watching.clocks import Clock, timed
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
        with timed(question, watch) as clock:
            async with aclosing(_tell(choices, turn, self.desk.draw(pieces), clock)) as steps:
                async for step in steps:
                    clock.tell(step)
                    yield step


async def _tell(
    choices: Sequence[Choice], turn: Turn, pieces: AsyncGenerator[Piece], clock: Clock
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
