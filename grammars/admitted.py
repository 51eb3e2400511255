"""Whether a JSON value can be said in our spelling, its members in an order that is allowed."""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from falsework.grammars.dfa import DEAD, DFA, START

TRIES = 20_000


class SearchTooLong(ValueError):
    """Whether a value can be said wasn't found in the steps allowed."""


def admits(automaton: DFA, value: Any) -> bool | None:
    """Tell whether an automaton says a value; None: not found out."""
    try:
        return _Search(automaton).whole(value)
    except SearchTooLong:
        return None


class _Search:
    """Spells a value in all orders and forms that the automaton allows."""

    def __init__(self, automaton: DFA) -> None:
        self._automaton = automaton
        self._left = TRIES

    def whole(self, value: Any) -> bool:
        return any(self._automaton.is_accepting(state) for state in self._said(START, value))

    def _step(self, state: int, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise SearchTooLong
        return self._automaton.step(state, text.encode("utf-8", "surrogatepass"))

    def _said(self, state: int, value: Any) -> Iterator[int]:
        """Yield the states behind the value's spellings."""
        if isinstance(value, Mapping):
            opened = self._step(state, "{")
            if opened != DEAD:
                yield from self._members(opened, dict(value), first=True)
        elif isinstance(value, list | tuple):
            opened = self._step(state, "[")
            if opened != DEAD:
                yield from self._items(opened, value, 0)
        else:
            for text in dict.fromkeys(_scalars(value)):
                behind = self._step(state, text)
                if behind != DEAD:
                    yield behind

    def _items(self, state: int, items: Any, index: int) -> Iterator[int]:
        if index == len(items):
            closed = self._step(state, "]")
            if closed != DEAD:
                yield closed
            return
        begun = self._step(state, ", ") if index else state
        for behind in dict.fromkeys(self._said(begun, items[index])) if begun != DEAD else ():
            yield from self._items(behind, items, index + 1)

    def _members(self, state: int, left: dict[str, Any], *, first: bool) -> Iterator[int]:
        # Members that can come now are tried in turn; where one leads to an end, that will do.
        seen: set[tuple[int, frozenset[str]]] = set()
        stack = [(state, frozenset(left), first)]
        while stack:
            here, names, opening = stack.pop()
            if not names:
                closed = self._step(here, "}")
                if closed != DEAD:
                    yield closed
                continue
            begun = here if opening else self._step(here, ", ")
            if begun == DEAD:
                continue
            ways = []
            for name, value in left.items():
                if name in names:
                    label = self._step(begun, json.dumps(name, ensure_ascii=False) + ": ")
                    for behind in dict.fromkeys(self._said(label, value)) if label else ():
                        place = (behind, names - {name})
                        if place not in seen:
                            seen.add(place)
                            ways.append((*place, False))
            stack += reversed(ways)


def _scalars(value: Any) -> Iterator[str]:
    yield json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if isinstance(value, float) and value.is_integer():
        yield str(int(value))
    number = Decimal(repr(value))
    yield format(number, "f")
    if isinstance(value, int):
        yield json.dumps(float(value))
