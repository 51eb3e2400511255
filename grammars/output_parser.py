"""A reply is a wire protocol: text arrives in any cuts, events leave. The only reader there is.

It trusts the constraint and repairs nothing: text that isn't as the markup says is a `Misread`.
"""

import json
from collections.abc import Callable

from falsework.grammars.argument_reader import ArgumentsReader
from falsework.grammars.events import (
    Arguments,
    CallBegins,
    CallEnds,
    Event,
    Reasoning,
    Text,
)
from falsework.grammars.reply_grammar import ReplyFormat, alternative_formats


class OutputParseError(ValueError):
    """The reply isn't spelled as its constraint promised: a fault of ours."""


class OutputParser:
    """Reads one reply of the given form; `opening` is what the prompt has said of it already."""

    def __init__(self, form: ReplyFormat, opening: str = "") -> None:
        calls = bool(form.choice.callable_tools(form.tools))
        self._markup = form.markup
        self._spellings = (form.markup, *alternative_formats(form))
        self._think = form.think
        self._trigger = form.markup.trigger if calls and form.answer is None else ""
        self._pending = opening
        self._received = len(opening)
        self._ended = False
        self._texts = {tool.name for tool in form.tools if tool.grammar}
        self._count = 0
        self.call_starts: list[int] = []
        """Where each call's name begins, in characters of the reply."""
        self.answer_start: int | None = None
        """Where the answer begins, once it has."""
        self._arguments = ArgumentsReader(form.markup.notation)
        self._answer = self._beginning if calls else self._text
        first = self._block if form.thinking else self._opening_block
        self._read: Callable[[], list[Event] | None] = first if form.think else self._answer

    @property
    def in_reasoning(self) -> bool:
        """Tell whether the reply is inside its think block."""
        return self._read == self._block

    def feed(self, text: str) -> list[Event]:
        """Take the next piece of the reply and return what it makes certain."""
        self._pending += text
        self._received += len(text)
        events: list[Event] = []
        while (read := self._read()) is not None:
            events += read
        return events

    def close(self, *, complete: bool) -> list[Event]:
        """Return what was held back when no more comes.

        `complete` False: the token limit cut the reply, and a call that had begun isn't reported.
        """
        self._ended = True
        events = self.feed("")
        resting = [self._block, self._gap, self._beginning, self._text, self._nothing]
        if not self._markup.closing:
            resting.append(self._behind_call)
        if complete and self._read == self._whole_text:
            text, self._pending = self._pending, ""
            said = json.dumps({"input": text}, ensure_ascii=False)
            return [*events, Arguments(self._count, said), CallEnds(self._count)]
        if complete and (self._read not in resting or self._pending):
            msg = f"the reply ended inside a call, before {self._pending!r}"
            raise OutputParseError(msg)
        return events

    # Each state reads from `_pending`; None: it needs more, or there is nothing more to read.

    def _opening_block(self) -> list[Event] | None:
        assert self._think
        opening = self._think.opening
        if self._may_become(opening):
            return None
        if self._pending.startswith(opening):
            self._drop(opening)
            self._read = self._block
        else:
            self._read = self._answer
        return []

    def _block(self) -> list[Event] | None:
        assert self._think
        closing = self._think.closing
        before, found, rest = self._pending.partition(closing)
        if found:
            self._pending = rest
            self._read = self._gap
            return [Reasoning(before)] if before else []
        return self._held(closing, Reasoning)

    def _gap(self) -> list[Event] | None:
        """Skip the blanks between think block and answer."""
        self._pending = self._pending.lstrip(" \t\r\n")
        if not self._pending:
            return None
        self._read = self._answer
        return []

    def _beginning(self) -> list[Event] | None:
        if not self._pending or any(self._may_become(one.prefix) for one in self._spellings):
            return None
        begun = [one for one in self._spellings if self._pending.startswith(one.prefix)]
        if begun:
            self._markup = begun[0]
            self._drop(begun[0].prefix)
        self._read = self._name if begun else self._text
        return []

    def _text(self) -> list[Event] | None:
        if self.answer_start is None:
            self.answer_start = self._received - len(self._pending)
        at = self._pending.find(self._trigger) if self._trigger else -1
        if at < 0:
            return self._held(self._trigger, Text)
        before, self._pending = self._pending[:at], self._pending[at:]
        self._expect(self._markup.prefix, self._name)
        return [Text(before)] if before else []

    def _name(self) -> list[Event] | None:
        name, found, rest = self._pending.partition(self._markup.after_name)
        if not found:
            return None
        self.call_starts.append(self._received - len(self._pending))
        self._pending = rest
        self._arguments = ArgumentsReader(self._markup.notation)
        self._read = self._whole_text if name in self._texts else self._said
        return [CallBegins(self._count, name)]

    def _said(self) -> list[Event] | None:
        text, self._pending = self._arguments.feed(self._pending)
        if self._arguments.done:
            self._expect(self._markup.after_arguments, self._call_end)
        elif not text:
            return None
        return [Arguments(self._count, text)] if text else []

    def _whole_text(self) -> list[Event] | None:
        """Hold the text of a custom tool's grammar, which ends with the reply."""
        return None

    def _call_end(self) -> list[Event] | None:
        self._count += 1
        self._read = self._behind_call
        return [CallEnds(self._count - 1)]

    def _behind_call(self) -> list[Event] | None:
        again = self._markup.separator + self._markup.before_name
        if self._pending.startswith(again):
            self._drop(again)
            self._read = self._name
            return []
        if again.startswith(self._pending):
            return None
        self._expect(self._markup.closing, self._nothing)
        return []

    def _nothing(self) -> list[Event] | None:
        if self._pending:
            msg = f"more text behind the calls: {self._pending!r}"
            raise OutputParseError(msg)
        return None

    # What the states are made of.

    def _expect(self, literal: str, then: Callable[[], list[Event] | None]) -> None:
        """Read exactly `literal`, then go on with `then`."""

        def read() -> list[Event] | None:
            if len(self._pending) < len(literal) and literal.startswith(self._pending):
                return None
            if not self._pending.startswith(literal):
                msg = f"expected {literal!r}, not {self._pending!r}"
                raise OutputParseError(msg)
            self._drop(literal)
            self._read = then
            return []

        self._read = read

    def _may_become(self, literal: str) -> bool:
        """Tell whether what is pending is a true prefix of the literal and more may come."""
        shorter = len(self._pending) < len(literal) and literal.startswith(self._pending)
        return shorter and not self._ended

    def _drop(self, literal: str) -> None:
        self._pending = self._pending[len(literal) :]

    def _held(self, marker: str, kind: type[Reasoning] | type[Text]) -> list[Event] | None:
        """Let go of what is pending, but for an end that may become the marker."""
        keep = 0
        if not self._ended:
            longest = min(len(marker) - 1, len(self._pending))
            keep = next((n for n in range(longest, 0, -1) if self._pending.endswith(marker[:n])), 0)
        cut = len(self._pending) - keep
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return [kind(text)] if text else None
