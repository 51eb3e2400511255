"""truncation auto: what is oldest in a conversation is left out until the rest fits the model."""

from collections.abc import Sequence
from dataclasses import replace

from falsework.prompts.messages import Message
from falsework.server.errors import ContextLengthExceeded
from falsework.server.generation import GenerationRequest, PreparedTurn, TurnBuilder
from falsework.server.observability import warn_client

INPUT_TRUNCATED = "input_truncated"
"""The code of the warning for messages that the model isn't shown."""


async def build_truncated(builder: TurnBuilder, request: GenerationRequest) -> PreparedTurn:
    """Return the turn of a request, shortened until it fits; raise ContextLengthExceeded.

    The system messages at the head stay, and the rest begins with a user's message. Twice as many
    of the user's messages go each time, so that long conversations are soon short.
    """
    starts = _starts(request.messages)
    step = 1
    while True:
        try:
            turn = await builder.build(request)
        except ContextLengthExceeded:
            starts = starts[min(step, len(starts) - 1) :] if len(starts) > 1 else []
            if not starts:
                raise
            step *= 2
            request = replace(request, messages=_from(request.messages, starts[0]))
            starts = _starts(request.messages)
        else:
            if step > 1:
                message = "The input was longer than this model's context: its oldest messages "
                message += "are left out, as 'truncation' allows."
                warn_client(INPUT_TRUNCATED, message, "truncation")
            return turn


def _starts(messages: Sequence[Message]) -> list[int]:
    """Return where the user's messages stand, and so where a shorter conversation may begin."""
    return [i for i, message in enumerate(messages) if message.role == "user"]


def _from(messages: Sequence[Message], start: int) -> tuple[Message, ...]:
    """Return the conversation from a message on, behind the system messages at its head."""
    head = next((i for i, one in enumerate(messages) if one.role != "system"), 0)
    return (*messages[:head], *messages[start:])
