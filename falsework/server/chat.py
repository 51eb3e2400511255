"""One turn of the model: a question, the engine's pieces, the steps of a reply."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from falsework.server.choices import Choice, Step
from falsework.server.desk import Desk
from falsework.server.engines.base import Engine, Piece
from falsework.server.questions import Question
from falsework.server.refusals import Broken
from falsework.server.replies import Usage, new_id
from falsework.server.turns import Scaffold, Turn


@dataclass(frozen=True)
class Chat:
    """Answers questions with one engine and one model's scaffold."""

    engine: Engine
    scaffold: Scaffold
    desk: Desk

    async def told(
        self, question: Question, *, half_calls: bool = False
    ) -> AsyncGenerator[Step | Usage]:
        """Tell the steps of a reply, then its usage; closing it frees the engine.

        `half_calls` tells calls as they are decoded; otherwise once they are complete.
        """
        turn = await self.scaffold.prepare(question)
        request_id = new_id("turn-")
        pieces = self.engine.generate(turn.prompt, turn.sampling, turn.constraint, request_id)
        choices = [
            Choice(turn.reader(), question.stop, named=question.named, half_calls=half_calls)
            for _ in range(turn.sampling.n)
        ]
        async with aclosing(_tell(choices, turn, self.desk.draw(pieces))) as steps:
            async for step in steps:
                yield step


async def _tell(
    choices: Sequence[Choice], turn: Turn, pieces: AsyncGenerator[Piece]
) -> AsyncGenerator[Step | Usage]:
    cached = 0
    async with aclosing(pieces):
        async for piece in pieces:
            cached = max(cached, piece.cached_tokens)
            if not choices[piece.choice].finished:
                yield choices[piece.choice].hear(piece)
            if all(choice.finished for choice in choices):
                break
    if not all(choice.finished for choice in choices):
        raise Broken("The engine ended before the reply did.", code="engine_error")
    yield Usage(
        prompt=len(turn.prompt) - len(turn.opening.tokens),
        completion=sum(len(turn.opening.tokens) + choice.tokens for choice in choices),
        cached=cached,
        reasoning=sum(choice.reasoning_tokens for choice in choices),
    )
