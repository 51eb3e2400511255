"""Calls in a history and their results: each result is put behind its call.

Clients write down what happened as it happened: a hook's message stands between a call and its
result, ids are missing or come twice, and a compaction has cut calls away. Chat templates want each
result right behind its call, in the order of the calls.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from falsework.prompts.messages import Message
from falsework.server.errors import BadRequestError
from falsework.server.observability import warn_client

OrphanPolicy = Literal["refuse", "keep"]

ORPHAN_KEPT = "result_without_call"
"""The code of the warning for a result whose call isn't in the conversation."""


@dataclass(frozen=True)
class Entry:
    """A message of a conversation and the field of the request that it stands in."""

    message: Message
    param: str


@dataclass(frozen=True)
class PairingErrors:
    """What a protocol says of a result without a call, and of calls without results.

    `unanswered` takes the ids and the position of the entry that should have been their result,
    which may be behind the last.
    """

    orphan: Callable[[Entry, frozenset[str]], BadRequestError]
    unanswered: Callable[[Sequence[str], int], BadRequestError]


@dataclass
class _Call:
    """A call of a message; its results are mostly one."""

    id: str
    results: list[Message] = field(default_factory=list)
    answered: bool = False


class _Waiting:
    """The calls so far, by id and in their order: each is found in a constant number of steps."""

    def __init__(self) -> None:
        self._in_order: deque[_Call] = deque()
        self._by_id: defaultdict[str, deque[_Call]] = defaultdict(deque)
        self._answered: dict[str, _Call] = {}

    def add(self, call_id: str) -> _Call:
        """Add a call and return it."""
        call = _Call(call_id)
        self._in_order.append(call)
        self._by_id[call_id].append(call)
        return call

    def take(self, call_id: str) -> _Call | None:
        """Return the call that a result belongs to, None where there is none.

        A second result belongs to the call of the first, and one whose id nobody has to a call
        without an id.
        """
        call = self._first(self._by_id[call_id] if call_id else self._in_order)
        if call is None and call_id:
            call = self._answered.get(call_id) or self._first(self._by_id[""])
        if call is not None:
            call.answered = True
            self._answered[call.id] = call
        return call

    @staticmethod
    def _first(calls: deque[_Call]) -> _Call | None:
        """Return the first call without a result; those before it are forgotten."""
        while calls and calls[0].answered:
            calls.popleft()
        return calls[0] if calls else None


def pair_results(
    entries: Sequence[Entry], errors: PairingErrors, orphans: OrphanPolicy = "refuse"
) -> tuple[Message, ...]:
    """Return the messages, each call's results right behind it; raise BadRequestError.

    A result belongs to the first call of its id that has none yet, one without an id to the first
    call without a result. `orphans` tells what becomes of a result without a call.
    """
    calls: dict[int, list[_Call]] = {}
    waiting = _Waiting()
    orphaned: dict[int, Message] = {}
    latest: frozenset[str] = frozenset()
    for position, entry in enumerate(entries):
        message = entry.message
        if message.role == "tool":
            call = waiting.take(message.call_id)
            if call is None:
                orphaned[position] = _orphan(entry, latest, errors, orphans)
            else:
                call.results.append(replace(message, call_id=call.id))
        elif message.calls:
            ids = message.call_ids or ("",) * len(message.calls)
            calls[position] = [waiting.add(call_id) for call_id in ids]
        if message.role != "tool":
            latest = frozenset(message.call_ids)
    return tuple(_paired(entries, calls, orphaned, errors))


def _orphan(
    entry: Entry, latest: frozenset[str], errors: PairingErrors, orphans: OrphanPolicy
) -> Message:
    if orphans == "refuse":
        raise errors.orphan(entry, latest)
    message = entry.message
    warn_client(
        ORPHAN_KEPT,
        f"The result in {entry.param} has no call in the conversation: it is kept as text.",
        entry.param,
    )
    named = f" of {message.name}" if message.name else ""
    return Message("user", f"The result{named} of an earlier call:\n{message.text}")


def _paired(
    entries: Sequence[Entry],
    calls: dict[int, list[_Call]],
    orphaned: dict[int, Message],
    errors: PairingErrors,
) -> list[Message]:
    messages: list[Message] = []
    for position, entry in enumerate(entries):
        if entry.message.role == "tool":
            if position in orphaned:
                messages.append(orphaned[position])
            continue
        made = calls.get(position, [])
        missing = [call.id for call in made if not call.results]
        if missing:
            following = position + 1
            while following < len(entries) and entries[following].message.role == "tool":
                following += 1
            raise errors.unanswered(missing, following)
        message = entry.message
        if made:
            message = replace(message, call_ids=tuple(call.id for call in made))
        messages += [message, *(result for call in made for result in call.results)]
    return messages
