"""POST /v1/responses/compact: a conversation in fewer tokens, told by the model itself."""

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from falsework.grammars.events import Text
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.messages import Message
from falsework.server.api.responses.object import ResponseObject, usage_object
from falsework.server.api.sealed import COMPACTION, sealed
from falsework.server.errors import BadRequestError
from falsework.server.generation import NO_USAGE, GenerationRequest, TurnRunner, Usage
from falsework.server.observability import RequestMetrics, record_outcome
from falsework.server.types import Json

TASK = (
    "Summarize this conversation so that somebody who knows nothing of it can go on with it: what "
    "the user wants, what was done and found out (names, paths, numbers as they are), what is left "
    "to do. Write the summary alone."
)
HEAD = "The conversation so far, in short:\n"
SUMMARY_TOKENS = 1024


async def compact(
    runner: TurnRunner, generation: GenerationRequest, items: Sequence[Json], api: ResponseObject
) -> Json:
    """Return the compacted conversation: the user's messages, and the rest as one item.

    `generation` is the request for the conversation, `items` are its items.
    """
    asked = replace(
        generation,
        messages=(*generation.messages, Message("user", TASK)),
        tools=(),
        choice=ToolChoice("none"),
        response_schema=None,
        sampling=replace(generation.sampling, max_tokens=SUMMARY_TOKENS, logprobs=None),
        stream=False,
    )
    metrics = RequestMetrics(generation.model, "compact", stream=False)
    text, usage = "", NO_USAGE
    with record_outcome(metrics):
        async with aclosing(runner.stream(asked, metrics)) as deltas:
            async for delta in deltas:
                if isinstance(delta, Usage):
                    usage = delta
                    continue
                text += "".join(one.text for one in delta.events if isinstance(one, Text))
    if not text.strip():
        message = "The model had nothing to say of this conversation: it can't be compacted."
        raise BadRequestError(message, "input")
    compaction = {
        "id": api.next_item_id("cmp_"),
        "type": "compaction",
        "encrypted_content": sealed(HEAD + text.strip(), COMPACTION),
    }
    users = [{**item, "status": "completed"} for item in items if item.get("role") == "user"]
    return {
        "id": api.id,
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*users, compaction],
        "usage": usage_object(usage),
    }
