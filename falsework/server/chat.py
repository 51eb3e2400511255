"""One chat request: a question, its turn, the engine's pieces, a reply streamed or whole."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from falsework.server.choices import Choice, Step
from falsework.server.desk import Desk
from falsework.server.engines.base import Engine, Piece
from falsework.server.questions import Question
from falsework.server.refusals import Broken
from falsework.server.replies import Chunks, Completion, Envelope, Json, Usage
from falsework.server.turns import Scaffold, Turn


@dataclass(frozen=True)
class Chat:
    """Answers questions with one engine and one model's scaffold."""

    engine: Engine
    scaffold: Scaffold
    desk: Desk
    fingerprint: str

    async def whole(self, question: Question) -> Json:
        """Return the reply as one object: the fold of what a stream would tell."""
        envelope = Envelope(question, self.fingerprint)
        completion = Completion(envelope)
        usage = Usage(0, 0)
        async with aclosing(self._told(await self._turn(question), envelope)) as told:
            async for step in told:
                if isinstance(step, Usage):
                    usage = step
                else:
                    completion.add(step)
        return completion.whole(usage)

    async def streamed(self, question: Question) -> AsyncGenerator[Json]:
        """Tell the reply chunk by chunk; closing it frees the engine."""
        envelope = Envelope(question, self.fingerprint)
        chunks = Chunks(envelope)
        async with aclosing(self._told(await self._turn(question), envelope)) as told:
            async for step in told:
                for chunk in chunks.usage(step) if isinstance(step, Usage) else chunks.of(step):
                    yield chunk

    async def _turn(self, question: Question) -> Turn:
        return await self.scaffold.prepare(question)

    def _told(self, turn: Turn, envelope: Envelope) -> AsyncGenerator[Step | Usage]:
        pieces = self.engine.generate(turn.prompt, turn.sampling, turn.constraint, envelope.id)
        return _tell(envelope.question, turn, self.desk.draw(pieces))


async def _tell(
    question: Question, turn: Turn, pieces: AsyncGenerator[Piece]
) -> AsyncGenerator[Step | Usage]:
    choices = [
        Choice(turn.reader(), question.stop, named=question.named) for _ in range(turn.sampling.n)
    ]
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
