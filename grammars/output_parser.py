"""A reply is a wire protocol: text arrives in any cuts, events leave. The only reader there is.

It trusts the constraint and repairs nothing: text that isn't as the markup says is a `Misread`.
"""

import json
from collections.abc import Callable

from falsework.grammars.argument_reader import ArgumentsReader
from falsework.grammars.bare_key_reader import BareKeyReader
from falsework.grammars.call_formats import NO_MATCH, ToolCallFormat, match_literal
from falsework.grammars.element_arguments import argument_types
from falsework.grammars.element_reader import ElementsReader
from falsework.grammars.events import Arguments, CallBegins, CallEnds, Event, Reasoning, Text
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.reply_grammar import alternative_formats


class OutputParseError(ValueError):
    """The reply isn't spelled as its constraint promised: a fault of ours."""


class OutputParser:
    """Reads one reply of the given form; `opening` is what the prompt has said of it already."""

    def __init__(self, form: ReplyFormat, opening: str = "") -> None:
        tools = form.choice.callable_tools(form.tools)
        calls = bool(tools)
        self._parameters = {tool.name: tool.parameters for tool in tools}
        self._markup = form.markup
        self._spellings = (form.markup, *alternative_formats(form)) if calls else ()
        self._think = form.think
        self._trigger = form.markup.trigger if calls and form.answer is None else ""
        self._pending = opening
        self._received = len(opening)
        self._ended = False
        self._texts = {tool.name for tool in form.tools if tool.grammar}
        self._closing = ""
        self._behind_text: Callable[[], list[Event] | None] = self._nothing
        self._count = 0
        self.call_starts: list[int] = []
        """Where each call's name begins, in characters of the reply."""
        self.answer_start: int | None = None
        """Where the answer begins, once it has."""
        self._arguments: ArgumentsReader | ElementsReader | BareKeyReader = ArgumentsReader(
            form.markup.notation
        )
        self._answer = self._beginning if calls or form.markup.answer_opening else self._text
        first = self._block_start if form.thinking else self._opening_block
        bare = self._gap if form.markup.leading else self._answer
        self._read: Callable[[], list[Event] | None] = first if form.think else bare

    @property
    def in_reasoning(self) -> bool:
        """Tell whether the reply is inside its think block."""
        return self._read in (self._block, self._block_start)

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

        `complete` False: the token limit cut the reply. Then neither a call that had begun is
        reported, nor what may have been the beginning of a mark.
        """
        self._ended = complete  # a cut reply keeps back what may be the beginning of a mark
        events = self.feed("")
        resting = [
            self._block,
            self._block_start,
            self._gap,
            self._beginning,
            self._text,
            self._closed_text,
            self._nothing,
        ]
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
        begun = self._pending.removeprefix(self._think.leading)
        stem = self._think.opening.rstrip("\n")
        short = any(self._may_become(opening) for opening in (stem, self._think.leading + stem))
        if short and not begun.startswith(stem):
            return None
        if begun.startswith(stem):
            self._pending = begun[len(stem) :]
            self._read = self._block_opened
        else:
            self._read = self._gap if self._markup.leading else self._answer
        return []

    def _block_opened(self) -> list[Event] | None:
        """Skip the newlines that belong to the opening of a think block."""
        assert self._think
        blank = self._think.opening[len(self._think.opening.rstrip("\n")) :]
        if self._may_become(blank):
            return None
        self._pending = self._pending.removeprefix(blank)
        self._read = self._block
        return []

    def _block_start(self) -> list[Event] | None:
        """Begin a block that the prompt has opened."""
        self._read = self._block
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
        """Skip what stands between think block and answer: blanks, or the gap's own marks."""
        marks = self._think.gap.strip() if self._think else ""
        if marks and self._may_become(marks):
            return None
        self._pending = self._pending.removeprefix(marks)
        if not marks:
            self._pending = self._pending.lstrip(" \t\r\n")
        if not self._pending:
            return None
        self._read = self._answer
        return []

    def _beginning(self) -> list[Event] | None:
        """Tell calls, marked text and bare text apart."""
        markup = self._markup
        marks = [mark for mark in (markup.answer_opening, markup.text_opening) if mark]
        heads = [one.prefix for one in self._spellings] + marks
        lengths = [match_literal(head, self._pending) for head in heads]
        if not self._pending or (None in lengths and not self._ended):
            return None
        found = [(n, length) for n, length in enumerate(lengths) if length and length > 0]
        if not found:
            self._read = self._text
            return []
        number, length = found[0]
        self._pending = self._pending[length:]
        if number < len(self._spellings):
            self._markup = self._spellings[number]
            self._read = self._name
        else:
            answer = heads[number] == markup.answer_opening
            self._closing = markup.answer_closing if answer else markup.text_closing
            self._behind_text = self._nothing if answer else self._beginning
            self._read = self._closed_text
        return []

    def _closed_text(self) -> list[Event] | None:
        """Read text up to the mark that closes it."""
        if not self._closing:
            return self._held("", Text)
        before, found, rest = self._pending.partition(self._closing)
        if not found:
            return self._held(self._closing, Text)
        self._pending = rest
        self._read = self._behind_text
        return [Text(before)] if before else []

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
        found = [at for at in map(self._pending.find, self._markup.name_ends) if at >= 0]
        if not found:
            return None
        at = min(found)
        name = self._pending[:at]
        length = match_literal(self._markup.after_name, self._pending[at:])
        if length is None:
            return None
        if length == NO_MATCH:
            msg = f"expected {self._markup.after_name!r} behind a name, not {self._pending!r}"
            raise OutputParseError(msg)
        self.call_starts.append(self._received - len(self._pending))
        self._pending = self._pending[at + length :]
        self._arguments = self._reader_of(self._markup, name)
        self._read = self._whole_text if name in self._texts else self._argument_text
        return [CallBegins(self._count, name)]

    def _reader_of(
        self, markup: ToolCallFormat, name: str
    ) -> ArgumentsReader | ElementsReader | BareKeyReader:
        if markup.bare_keys:
            return BareKeyReader(markup.bare_keys)
        if markup.elements is None:
            return ArgumentsReader(markup.notation)
        types = argument_types(self._parameters.get(name, {}))
        return ElementsReader(markup.elements, types, markup.after_arguments)

    def _argument_text(self) -> list[Event] | None:
        text, self._pending = self._arguments.feed(self._pending)
        if self._arguments.done:
            self._read = self._behind_arguments
        elif not text:
            return None
        return [Arguments(self._count, text)] if text else []

    def _whole_text(self) -> list[Event] | None:
        """Hold the text of a custom tool's grammar, which ends with the reply."""
        return None

    def _behind_arguments(self) -> list[Event] | None:
        length = match_literal(self._markup.optional_id, self._pending)
        ends = match_literal(self._markup.after_arguments, self._pending) != NO_MATCH
        if length is None and not (self._ended and ends):
            return None
        self._pending = self._pending[max(length or 0, 0) :]
        self._expect(self._markup.after_arguments, self._call_end)
        return []

    def _call_end(self) -> list[Event] | None:
        self._count += 1
        self._read = self._behind_call
        return [CallEnds(self._count - 1)]

    def _behind_call(self) -> list[Event] | None:
        markup = self._markup
        separators = (markup.separator, *markup.other_separators)
        lengths = [match_literal(one + markup.before_name, self._pending) for one in separators]
        found = [length for length in lengths if length not in (None, NO_MATCH)]
        if found:
            self._pending = self._pending[found[0] :]
            self._read = self._name
            return []
        if None in lengths and not (self._ended and self._pending == markup.closing):
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
            length = match_literal(literal, self._pending)
            if length is None:
                return None
            if length == NO_MATCH:
                msg = f"expected {literal!r}, not {self._pending!r}"
                raise OutputParseError(msg)
            self._pending = self._pending[length:]
            self._read = then
            return []

        self._read = read

    def _may_become(self, literal: str) -> bool:
        """Tell whether what is pending is a true prefix of the literal and more may come."""
        shorter = len(self._pending) < len(literal) and literal.startswith(self._pending)
        return shorter and not self._ended

    def _held(self, marker: str, kind: type[Reasoning] | type[Text]) -> list[Event] | None:
        """Let go of what is pending, but for an end that may become the marker."""
        keep = 0
        if not self._ended:
            longest = min(len(marker) - 1, len(self._pending))
            keep = next((n for n in range(longest, 0, -1) if self._pending.endswith(marker[:n])), 0)
        cut = len(self._pending) - keep
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return [kind(text)] if text else None
