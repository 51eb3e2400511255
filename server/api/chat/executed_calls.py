"""Turns of which the client runs a part: when it comes back, the server's part is known.

Clients may send `executed_tools` back. Many drop what they don't know, so the results are kept too,
under the first of the calls that the client runs.
"""

import re
from collections.abc import Iterable, Sequence

from falsework.server.api.chat.message_schema import ExecutedToolCall, MessageParam
from falsework.server.storage import Store
from falsework.server.types import Json

SERVER_CALL_ID = re.compile(r"call_[a-zA-Z0-9]{24}")


async def save_executed_calls(store: Store, owner: str, chunks: Iterable[Json]) -> None:
    """Keep what the server ran in a reply: its chunks, or the whole as the only one."""
    executed: list[Json] = []
    ids: list[str] = []
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        message = choice.get("message") or choice["delta"]
        executed += message.get("executed_tools") or ()
        ids += (call["id"] for call in message.get("tool_calls") or () if "id" in call)
    if executed and ids:
        await store.calls.save_executed(owner, ids[0], executed)


async def restore_executed_calls(
    store: Store, owner: str, messages: Sequence[MessageParam]
) -> list[MessageParam]:
    """Return the messages, each with what the server ran in it."""
    ids = {i: _call_id(message) for i, message in enumerate(messages)}
    executed = await store.calls.get_executed(
        owner, [call_id for call_id in ids.values() if call_id]
    )
    return [_with(message, executed.get(ids[i], ())) for i, message in enumerate(messages)]


def _call_id(message: MessageParam) -> str:
    """Return the id that a turn is kept under, if it may be one of ours and doesn't tell itself."""
    first = (message.tool_calls[0].id if message.tool_calls else "") or ""
    return first if SERVER_CALL_ID.fullmatch(first) and message.executed_tools is None else ""


def _with(message: MessageParam, executed: Sequence[Json]) -> MessageParam:
    calls = [ExecutedToolCall.model_validate(call) for call in executed]
    return message.model_copy(update={"executed_tools": calls}) if calls else message
