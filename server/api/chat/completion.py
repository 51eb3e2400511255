"""A chat completion, whole or streamed, from what is told of a request."""

from falsework.server.generation.usage import Usage
from falsework.server.types import Json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from falsework.server.api.chat.objects import ChunkBuilder, CompletionBuilder, ReplyHeader
from falsework.server.generation.choice import ChoiceDelta
from falsework.server.generation.tool_loop import LoopEvent, ToolCallsFinished


async def collect_completion(told: AsyncGenerator[LoopEvent], envelope: ReplyHeader) -> Json:
    """Return the reply as one object: the fold of what a stream would tell."""
    completion = CompletionBuilder(envelope)
    usage = Usage(0, 0)
    async with aclosing(told):
        async for each in told:
            if isinstance(each, Usage):
                usage = each
            elif isinstance(each, ChoiceDelta):
                completion.add(each)
            elif isinstance(each, ToolCallsFinished):
                completion.executed += [outcome.to_openai() for outcome in each.outcomes]
    return completion.build(usage)


async def stream_chunks(
    told: AsyncGenerator[LoopEvent], envelope: ReplyHeader
) -> AsyncGenerator[Json]:
    """Tell the reply chunk by chunk; closing it frees the engine."""
    chunks = ChunkBuilder(envelope)
    async with aclosing(told):
        async for each in told:
            made: list[Json] = []
            if isinstance(each, Usage):
                made = chunks.usage(each)
            elif isinstance(each, ChoiceDelta):
                made = chunks.from_delta(each)
            elif isinstance(each, ToolCallsFinished):
                made = chunks.executed([outcome.to_openai() for outcome in each.outcomes])
            for chunk in made:
                yield chunk
