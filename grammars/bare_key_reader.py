"""Where an object with bare keys ends, and its text as JSON."""

from collections.abc import Callable

from falsework.grammars import json_values
from falsework.grammars.call_formats import BareKeyNotation
from falsework.grammars.element_reader import escaped


class BareKeyReader:
    """Reads the members of one call as they arrive; `done` before the brace that ends them."""

    def __init__(self, notation: BareKeyNotation) -> None:
        self._quote = notation.quote
        self._pending = ""
        self._open: list[str] = []
        self._begun = False
        self._read: Callable[[], str | None] = self._key_or_end
        self.done = False

    def feed(self, text: str) -> tuple[str, str]:
        """Return (JSON text so far certain, text behind the arguments)."""
        self._pending += text
        json_text = "" if self._begun or not self._pending else "{"
        self._begun = self._begun or bool(self._pending)
        while not self.done and (piece := self._read()) is not None:
            json_text += piece
        if not self.done:
            return json_text, ""
        rest, self._pending = self._pending, ""
        return json_text, rest

    # Each state reads from `_pending`; None: it needs more.

    def _key_or_end(self) -> str | None:
        if not self._pending:
            return None
        if self._pending[0] == "}":
            return self._close()
        name, found, rest = self._pending.partition(":")
        if not found:
            return None
        self._pending = rest
        self._read = self._value
        return json_values.dumps(name) + ": "

    def _value(self) -> str | None:
        first = self._pending[:1]
        if first in ("{", "["):
            self._pending = self._pending[1:]
            self._open.append(first)
            self._read = self._key_or_end if first == "{" else self._item_or_end
            return first
        if self._pending.startswith(self._quote):
            self._pending = self._pending.removeprefix(self._quote)
            self._read = self._string
            return '"'
        if not first or self._quote.startswith(self._pending):
            return None
        ends = [at for mark in ",]}" if (at := self._pending.find(mark)) >= 0]
        if not ends:
            return None
        text, self._pending = self._pending[: min(ends)], self._pending[min(ends) :]
        self._read = self._behind_value
        return text

    def _item_or_end(self) -> str | None:
        if self._pending[:1] == "]":
            return self._close()
        self._read = self._value
        return "" if self._pending else None

    def _string(self) -> str | None:
        before, found, rest = self._pending.partition(self._quote)
        if found:
            self._pending = rest
            self._read = self._behind_value
            return escaped(before) + '"'
        longest = min(len(self._quote) - 1, len(self._pending))
        keep = next(
            (n for n in range(longest, 0, -1) if self._pending.endswith(self._quote[:n])), 0
        )
        cut = len(self._pending) - keep
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return escaped(text) if text else None

    def _behind_value(self) -> str | None:
        if not self._pending:
            return None
        if self._pending[0] != ",":
            return self._close()
        self._pending = self._pending[1:]
        inside_list = bool(self._open) and self._open[-1] == "["
        self._read = self._value if inside_list else self._key_or_end
        return ", "

    def _close(self) -> str:
        """End the innermost list or object; the outermost's brace isn't taken."""
        if not self._open:
            self.done = True
            return "}"
        self._open.pop()
        closing, self._pending = self._pending[0], self._pending[1:]
        self._read = self._behind_value
        return closing
