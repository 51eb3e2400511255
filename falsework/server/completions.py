"""A chat completion, whole or streamed, from what is told of a request."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from falsework.server.choices import Step
from falsework.server.replies import Chunks, Completion, Envelope, Json, Usage
from falsework.server.rounds import Called, Told


async def whole(told: AsyncGenerator[Told], envelope: Envelope) -> Json:
    """Return the reply as one object: the fold of what a stream would tell."""
    completion = Completion(envelope)
    usage = Usage(0, 0)
    async with aclosing(told):
        async for each in told:
            if isinstance(each, Usage):
                usage = each
            elif isinstance(each, Step):
                completion.add(each)
            elif isinstance(each, Called):
                completion.executed += [outcome.wire() for outcome in each.outcomes]
    return completion.whole(usage)


async def streamed(told: AsyncGenerator[Told], envelope: Envelope) -> AsyncGenerator[Json]:
    """Tell the reply chunk by chunk; closing it frees the engine."""
    chunks = Chunks(envelope)
    async with aclosing(told):
        async for each in told:
            made: list[Json] = []
            if isinstance(each, Usage):
                made = chunks.usage(each)
            elif isinstance(each, Step):
                made = chunks.of(each)
            elif isinstance(each, Called):
                made = chunks.executed([outcome.wire() for outcome in each.outcomes])
            for chunk in made:
                yield chunk
