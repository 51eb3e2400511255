"""Turns of which the client runs a part: when it comes back, the server's part is known.

Clients may send `executed_tools` back. Many drop what they don't know, so the results are kept too,
under the first of the calls that the client runs.
"""

import re
from collections.abc import Iterable, Sequence

from falsework.server.records import Records
from falsework.server.replies import Json
from falsework.server.wiremessages import ExecutedCall, WireMessage

OURS = re.compile(r"call_[a-zA-Z0-9]{24}")


async def keep(records: Records, owner: str, said: Iterable[Json]) -> None:
    """Keep what the server ran in a reply: its chunks, or the whole as the only one."""
    executed: list[Json] = []
    ids: list[str] = []
    for choice in (choice for chunk in said for choice in chunk["choices"]):
        told = choice.get("message") or choice["delta"]
        executed += told.get("executed_tools") or ()
        ids += (call["id"] for call in told.get("tool_calls") or () if "id" in call)
    if executed and ids:
        await records.keep_turn(owner, ids[0], executed)


async def recalled(
    records: Records, owner: str, messages: Sequence[WireMessage]
) -> list[WireMessage]:
    """Return the messages, each with what the server ran in it."""
    ids = {i: _call_id(message) for i, message in enumerate(messages)}
    known = await records.turns(owner, [each for each in ids.values() if each])
    return [_with(message, known.get(ids[i], ())) for i, message in enumerate(messages)]


def _call_id(message: WireMessage) -> str:
    """Return the id that a turn is kept under, if it may be one of ours and doesn't tell itself."""
    first = message.tool_calls[0].id if message.tool_calls else ""
    return first if OURS.fullmatch(first) and message.executed_tools is None else ""


def _with(message: WireMessage, executed: Sequence[Json]) -> WireMessage:
    calls = [ExecutedCall.model_validate(call) for call in executed]
    return message.model_copy(update={"executed_tools": calls}) if calls else message
