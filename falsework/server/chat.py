"""One chat request: a question, its turn, the engine's pieces, a reply streamed or whole."""

from collections.abc import AsyncGenerator, Sequence
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
    half_calls: bool = False
    """Whether a stream tells calls as they are decoded; a whole reply never holds half a call."""

    async def whole(self, question: Question) -> Json:
        """Return the reply as one object: the fold of what a stream would tell."""
        envelope = Envelope(question, self.fingerprint)
        completion = Completion(envelope)
        usage = Usage(0, 0)
        turn = await self.scaffold.prepare(question)
        async with aclosing(self._told(turn, envelope, half_calls=False)) as told:
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
        turn = await self.scaffold.prepare(question)
        async with aclosing(self._told(turn, envelope, half_calls=self.half_calls)) as told:
            async for step in told:
                for chunk in chunks.usage(step) if isinstance(step, Usage) else chunks.of(step):
                    yield chunk

    def _told(
        self, turn: Turn, envelope: Envelope, *, half_calls: bool
    ) -> AsyncGenerator[Step | Usage]:
        pieces = self.engine.generate(turn.prompt, turn.sampling, turn.constraint, envelope.id)
        question = envelope.question
        choices = [
            Choice(turn.reader(), question.stop, named=question.named, half_calls=half_calls)
            for _ in range(turn.sampling.n)
        ]
        return _tell(choices, turn, self.desk.draw(pieces))


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
