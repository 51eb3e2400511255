"""Texts of an automaton over characters, spelled in bytes between quotes.

Every character has one spelling: as it is where that may be, otherwise as `json.dumps` escapes it.
"""

import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from falsework.grammars.char_dfa import CharDFA, Edge
from falsework.grammars.code_points import Ranges
from falsework.grammars.expressions import NFA, CountedLoop, Expression

_Step = tuple[int, int]
"""The lowest and the highest byte."""


@dataclass(frozen=True, eq=False)
class _Tail:
    """What may follow the first bytes of a character: each way with what follows it (or None)."""

    ways: "tuple[_Way, ...]"


_Way = tuple[int, int, _Tail | None]
_Ways = tuple[tuple[int, int, Any], ...]
"""(lowest byte, highest byte, the state or the further ways behind)."""


def text_grammar(dfa: CharDFA) -> Expression:
    """Say the strings of an automaton, quoted, each character in its usual spelling."""
    return SpelledText(dfa)


class SpelledText:
    """The expression of an automaton over characters, deterministic as it is.

    With `counts`, the most characters with which a text may come to each state, texts have at least
    `low` characters.
    """

    def __init__(self, dfa: CharDFA, low: int = 0, counts: Sequence[int] | None = None) -> None:
        self._ends = [state for state, ends in enumerate(dfa.accepting) if ends]
        self._low = low
        self._counts = counts
        self._inside: list[int] = []
        """The highest count of each node between characters' bytes."""
        self.edges: list[tuple[int, int, int, int]] = []
        self._known: dict[tuple[_Tail, int] | _Ways, int] = {}
        self._states = len(dfa.rows)
        for state, row in enumerate(dfa.rows):
            self._add_row(state, row)
        self._block = np.array(self.edges, np.int32).reshape(-1, 4)

    @property
    def nodes(self) -> int:
        """How many nodes `edges` are between; the states of the automaton are the first."""
        return self._states + len(self._inside)

    def __call__(self, net: NFA, start: int) -> int:
        """Add the text behind a node, and return where it ends."""
        first = net.add_nodes(self.nodes)
        end = net.add_node()
        net.edges.append((start, 0x22, 0x22, first))
        net.edges.add_block(self._block + first * np.array([1, 0, 0, 1], np.int32))
        net.edges += [(first + state, 0x22, 0x22, end) for state in self._ends]
        if self._counts is not None:
            homes = (True,) * self._states + (False,) * len(self._inside)
            highs = (*self._counts, *self._inside)
            net.counters.append(CountedLoop(first, first + self.nodes - 1, self._low, homes, highs))
        return end

    def _add_row(self, state: int, row: Sequence[Edge]) -> None:
        ranges: dict[int, list[tuple[int, int]]] = {}
        for low, high, target in row:
            ranges.setdefault(target, []).append((low, high))
        ways = [
            (low, high, tail, target)
            for target, inside in ranges.items()
            for low, high, tail in _heads(tuple(inside))
        ]
        if len(ranges) > 1:
            ways.sort(key=lambda way: way[0])
            if any(one[1] >= other[0] for one, other in itertools.pairwise(ways)):
                # Characters that begin with one byte lead to different states.
                self._add_ways(state, _merged(tuple(row)))
                return
        for low, high, tail, target in ways:
            behind = target if tail is None else self._tail_node(tail, target)
            self.edges.append((state, low, high, behind))

    def _tail_node(self, tail: _Tail, target: int) -> int:
        node = self._known.get((tail, target))
        if node is None:
            node = self._add_node((tail, target))
            if self._counts is not None:
                self._inside[node - self._states] = self._counts[target] - 1
            for low, high, further in tail.ways:
                behind = target if further is None else self._tail_node(further, target)
                self.edges.append((node, low, high, behind))
        return node

    def _add_ways(self, source: int, ways: _Ways) -> None:
        for low, high, behind in ways:
            target = behind if isinstance(behind, int) else self._ways_node(behind)
            self.edges.append((source, low, high, target))

    def _ways_node(self, ways: _Ways) -> int:
        node = self._known.get(ways)
        if node is None:
            node = self._add_node(ways)
            self._add_ways(node, ways)
            if self._counts is not None:
                self._inside[node - self._states] = max(self._highest(one) for *_, one in ways)
        return node

    def _add_node(self, key: tuple[_Tail, int] | _Ways) -> int:
        node = self._known[key] = self.nodes
        self._inside.append(0)
        return node

    def _highest(self, behind: int | _Ways) -> int:
        """Return the most rounds with which a text may be on the way there."""
        assert self._counts is not None
        if isinstance(behind, int):
            return self._counts[behind] - 1
        return self._inside[self._known[behind] - self._states]


@functools.lru_cache(maxsize=8192)
def _heads(inside: Ranges) -> tuple[_Way, ...]:
    """Return how characters are spelled that all lead to one state."""
    return _grouped([steps for low, high in inside for steps in _spellings(low, high)])


def _grouped(spelled: list[tuple[_Step, ...]]) -> tuple[_Way, ...]:
    """Join spellings with the same first byte; ranges of first bytes are equal or disjoint."""
    heads: dict[_Step, list[tuple[_Step, ...]]] = {}
    for steps in spelled:
        heads.setdefault(steps[0], []).append(steps[1:])
    found: list[_Way] = []
    for (low, high), rests in sorted(heads.items()):
        behind = _tail(_grouped(rests)) if rests[0] else None
        if found and found[-1][1] == low - 1 and found[-1][2] is behind:
            found[-1] = (found[-1][0], high, behind)
        else:
            found.append((low, high, behind))
    return tuple(found)


@functools.lru_cache(maxsize=8192)
def _tail(ways: tuple[_Way, ...]) -> _Tail:
    """Return the same object for the same ways, so that they are said once."""
    return _Tail(ways)


@functools.lru_cache(maxsize=2048)
def _merged(row: tuple[Edge, ...]) -> _Ways:
    """Return the ways on from a state as bytes."""
    return _tree([(steps, target) for low, high, target in row for steps in _spellings(low, high)])


def _tree(spelled: list[tuple[tuple[_Step, ...], int]]) -> _Ways:
    """Join spellings with the same first byte; ranges of first bytes are equal or disjoint."""
    heads: dict[_Step, list[tuple[tuple[_Step, ...], int]]] = {}
    for steps, target in spelled:
        heads.setdefault(steps[0], []).append((steps[1:], target))
    found: list[tuple[int, int, Any]] = []
    for (low, high), rests in sorted(heads.items()):
        behind: Any = rests[0][1] if not rests[0][0] else _tree(rests)
        if found and found[-1][1] == low - 1 and found[-1][2] == behind:
            found[-1] = (found[-1][0], high, behind)
        else:
            found.append((low, high, behind))
    return tuple(found)


_MUST_ESCAPE: Ranges = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C))


@functools.lru_cache(maxsize=4096)
def _spellings(low: int, high: int) -> tuple[tuple[_Step, ...], ...]:
    """Return how the characters low..high are spelled, each way as ranges of bytes."""
    found: list[tuple[_Step, ...]] = []
    for first, last in _MUST_ESCAPE:
        codes = range(max(low, first), min(high, last) + 1)
        escapes = (json.dumps(chr(code))[1:-1].encode() for code in codes)
        found += [tuple((byte, byte) for byte in escape) for escape in escapes]
    for first, last in ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x10FFFF)):
        found += list(_utf8(max(low, first), min(high, last)))
    return tuple(found)


_LAST_OF_LENGTH = (0x7F, 0x7FF, 0xD7FF, 0xFFFF, 0x10FFFF)


def _utf8(low: int, high: int) -> Iterator[tuple[_Step, ...]]:
    """Cut a range of code points into ranges of UTF-8 bytes (RFC 3629)."""
    if low > high:
        return
    for last in _LAST_OF_LENGTH:
        if low <= last < high:
            yield from _utf8(low, last)
            yield from _utf8(max(last + 1, 0xE000) if last == 0xD7FF else last + 1, high)  # noqa: PLR2004
            return
    for tail in range(1, len(chr(low).encode())):
        block = (1 << 6 * tail) - 1
        if low >> 6 * tail != high >> 6 * tail:
            if low & block:
                yield from _utf8(low, low | block)
                yield from _utf8((low | block) + 1, high)
                return
            if high & block != block:
                yield from _utf8(low, (high & ~block) - 1)
                yield from _utf8(high & ~block, high)
                return
    yield tuple(zip(chr(low).encode(), chr(high).encode(), strict=True))
