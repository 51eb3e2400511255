"""Where a call's elements end, and their text as JSON."""

import json
import re
from collections.abc import Callable, Mapping

from falsework.grammars import json_values
from falsework.grammars.argument_reader import ArgumentsReader
from falsework.grammars.call_formats import ElementNotation
from falsework.grammars.element_arguments import PYTHON_WORDS, looks_like

_STRING = frozenset({"string"})


class ElementsReader:
    """Reads the elements of one call as they arrive; `done` once `ending` stands behind them.

    `types` are the JSON types that each argument may have; arguments it doesn't know are strings
    unless they look like something else. `ending` isn't taken.
    """

    def __init__(
        self, elements: ElementNotation, types: Mapping[str, frozenset[str]], ending: str
    ) -> None:
        self._elements = elements
        self._types = types
        self._ending = ending
        self._pending = ""
        self._count = 0
        self._kind = _STRING
        self._json = ArgumentsReader(json_values.JSON)
        self._read: Callable[[], str | None] = self._between
        self.done = False

    def feed(self, text: str) -> tuple[str, str]:
        """Return (JSON text so far certain, text behind the arguments)."""
        self._pending += text
        json_text = ""
        while not self.done and (piece := self._read()) is not None:
            json_text += piece
        if not self.done:
            return json_text, ""
        rest, self._pending = self._pending, ""
        return json_text, rest

    # Each state reads from `_pending`; None: it needs more.

    def _between(self) -> str | None:
        if self._pending.startswith(self._elements.before_key):
            self._drop(self._elements.before_key)
            self._read = self._key
            return ""
        if self._pending.startswith(self._ending):
            self.done = True
            return "}" if self._count else "{}"
        return None

    def _key(self) -> str | None:
        endings = {self._elements.after_key, self._elements.after_string_key} - {""}
        found = [(self._pending.find(ending), ending) for ending in endings]
        found = [(at, ending) for at, ending in found if at >= 0]
        if not found:
            return None
        at, ending = min(found)
        name = self._pending[:at]
        self._drop(name + ending)
        self._kind = self._kind_of(name, ending)
        self._read = self._value
        self._count += 1
        return ("{" if self._count == 1 else ", ") + json_values.dumps(name) + ": "

    def _kind_of(self, name: str, ending: str) -> frozenset[str]:
        if self._elements.after_string_key:
            return _STRING if ending == self._elements.after_string_key else frozenset()
        return self._types.get(
            name, frozenset({"object", "array", "number", "boolean", "null"}) | _STRING
        )

    def _value(self) -> str | None:
        """Begin a value: text that may be a string, or JSON."""
        if self._kind == _STRING:
            self._read = self._string
            return '"'
        if not self._pending:
            return None
        if self._pending[0] in "{[" and ("string" not in self._kind or self._is_structure()):
            self._json = ArgumentsReader(json_values.JSON)
            self._read = self._structure
        else:
            self._read = self._scalar
        return ""

    def _is_structure(self) -> bool:
        return {"{": "object", "[": "array"}[self._pending[0]] in self._kind

    def _string(self) -> str | None:
        closing = self._elements.after_value
        before, found, rest = self._pending.partition(closing)
        if found:
            self._pending = rest
            self._read = self._between
            return escaped(before) + '"'
        longest = min(len(closing) - 1, len(self._pending))
        keep = next((n for n in range(longest, 0, -1) if self._pending.endswith(closing[:n])), 0)
        cut = len(self._pending) - keep
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return escaped(text) if text else None

    def _structure(self) -> str | None:
        text, rest = self._json.feed(self._pending)
        self._pending = rest
        if self._json.done:
            self._read = self._closing
            return text
        return text or None

    def _closing(self) -> str | None:
        if not self._pending.startswith(self._elements.after_value):
            return None
        self._drop(self._elements.after_value)
        self._read = self._between
        return ""

    def _scalar(self) -> str | None:
        before, found, rest = self._pending.partition(self._elements.after_value)
        if not found:
            return None
        self._pending = rest
        self._read = self._between
        words = self._elements.python_words
        if "string" in self._kind and not re.fullmatch(
            looks_like(self._kind, python_words=words), before
        ):
            return json_values.dumps(before)
        return PYTHON_WORDS.get(before, before) if words else before

    def _drop(self, literal: str) -> None:
        self._pending = self._pending[len(literal) :]


def escaped(text: str) -> str:
    """Return text as it stands inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
