"""Limits that end a reply: calls that repeat one of it, calls too many, values without end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from falsework.grammars.events import Arguments, Call, CallBegins, CallEnds, Event, Text

EndedBy = Literal["repeated_call", "max_parallel_calls", "max_call_tokens", "repetition"]

REASONS: Mapping[EndedBy, str] = {
    "repeated_call": "the model repeated a call of this reply; the repeated call isn't reported",
    "max_parallel_calls": "the model began more calls than a reply may hold (max_parallel_calls)",
    "max_call_tokens": "a call, or an answer with a schema, had too many tokens (max_call_tokens)",
    "repetition": "a call, or an answer with a schema, repeated the same text without end",
}
"""Why a limit ended a reply, for people."""

CUTS: frozenset[EndedBy] = frozenset({"max_call_tokens", "repetition"})
"""Limits that cut a call or an answer: the reply ends with `length`."""

LOOP_CHARACTERS = 4096
"""How much of a value has to repeat itself until its reply is ended."""
LONGEST_PERIOD = 256
"""Characters of the longest text whose repetition is noticed."""
_STRIDE = 256
"""Characters between two looks at a value."""


@dataclass(frozen=True)
class ReplyLimits:
    """What one reply may hold.

    `calls`: how many calls; `call_tokens`: tokens of one call, or of an answer that has a schema,
    0 is no limit; `repeats`: whether a call may be like an earlier one.
    """

    calls: int = 16
    call_tokens: int = 0
    repeats: bool = False


DEFAULT_LIMITS = ReplyLimits()


class ReplyLimiter:
    """Lets the events of one choice through until a limit ends it, which `ended_by` tells.

    A call that so far is the beginning of an earlier one is held back until it is another.
    """

    def __init__(self, limits: ReplyLimits, *, answer: bool) -> None:
        """`answer`: text is an answer that has a schema."""
        self.ended_by: EndedBy | None = None
        self._limits = limits
        self._answer = answer
        self._calls: list[Call] = []
        self._name: str | None = None
        self._arguments = ""
        self._held: list[Event] = []
        self._loop = LoopDetector()
        self._tokens = 0

    def feed(self, events: Sequence[Event], tokens: int) -> list[Event]:
        """Return the events that may pass; they came with so many tokens."""
        passed: list[Event] = []
        for event in events:
            if self.ended_by:
                return passed
            passed += self._hear(event)
        if self._counts:
            self._tokens += tokens
            most = self._limits.call_tokens
            if most and self._tokens > most:
                self.ended_by = "max_call_tokens"
        return passed

    def rewind(self, calls: int) -> None:
        """Go back to where the reply had so many calls, and none begun."""
        del self._calls[calls:]
        self._name, self._held = None, []
        self._begin_value()

    @property
    def _counts(self) -> bool:
        """Whether what is being said is limited: a call, or an answer that has a schema."""
        return self._name is not None or self._answer

    def _hear(self, event: Event) -> list[Event]:
        match event:
            case CallBegins(_, name):
                if len(self._calls) >= self._limits.calls:
                    self.ended_by = "max_parallel_calls"
                    return []
                self._name, self._arguments = name, ""
                self._begin_value()
            case Arguments(_, text):
                self._arguments += text
                self._look(text)
            case CallEnds():
                return self._end(event)
            case Text(text) if self._answer:
                self._look(text)
                return [event]
            case _:
                return [event]
        return self._let_go([event], wait=self._may_repeat())

    def _end(self, event: CallEnds) -> list[Event]:
        assert self._name is not None, "a call begins before it ends"
        call = Call(self._name, self._arguments)
        self._name = None
        if call in self._calls and not self._limits.repeats:
            self.ended_by, self._held = "repeated_call", []
            return []
        self._calls.append(call)
        return self._let_go([event], wait=False)

    def _may_repeat(self) -> bool:
        """Tell whether the call that is being said may become like an earlier one."""
        if self._limits.repeats:
            return False
        return any(
            call.name == self._name and call.arguments.startswith(self._arguments)
            for call in self._calls
        )

    def _let_go(self, events: list[Event], *, wait: bool) -> list[Event]:
        self._held += events
        if wait:
            return []
        passed, self._held = self._held, []
        return passed

    def _begin_value(self) -> None:
        self._tokens, self._loop = 0, LoopDetector()

    def _look(self, text: str) -> None:
        if self._loop.feed(text):
            self.ended_by = "repetition"


class LoopDetector:
    """Notices text that only repeats itself any more."""

    def __init__(self) -> None:
        self._tail = ""
        self._new = 0

    def feed(self, text: str) -> bool:
        """Take more text; tell whether the last LOOP_CHARACTERS are one text again and again."""
        self._tail += text
        self._new += len(text)
        if self._new < _STRIDE or len(self._tail) < LOOP_CHARACTERS:
            return False
        self._tail, self._new = self._tail[-LOOP_CHARACTERS:], 0
        end = self._tail[-LONGEST_PERIOD:]
        before = self._tail.rfind(end, -2 * LONGEST_PERIOD, -1)
        if before < 0:
            return False
        period = LOOP_CHARACTERS - LONGEST_PERIOD - before
        return self._tail[period:] == self._tail[:-period]
