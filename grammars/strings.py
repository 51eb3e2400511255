"""Sets of strings: lengths, patterns, formats and listed values, and how they are spelled."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import ANY_TEXT, CharDFA, TooManyCharacterStates, texts
from falsework.grammars.code_points import Ranges
from falsework.grammars.expressions import (
    LARGEST_COUNT,
    NFA,
    CountedLoop,
    Expression,
    GrammarTooLarge,
)
from falsework.grammars.format_tables import format_dfa, loose_format_dfa
from falsework.grammars.pattern_dfa import pattern_dfa


@dataclass(frozen=True)
class Rule:
    """A pattern or a format that strings have (`holds`) or haven't.

    `loose`: in the widest reading of any validator, otherwise only what every validator reads so.
    """

    keyword: str
    text: str
    holds: bool = True
    loose: bool = False

    def dfa(self, budget: Budget) -> CharDFA:
        """Return the automaton of the strings that keep the rule."""
        upper = self.holds == self.loose
        if self.keyword == "format":
            made = loose_format_dfa(self.text) if upper else format_dfa(self.text)
        else:
            made = pattern_dfa(self.text, budget, upper=upper)
        return made if self.holds else made.complement()


@dataclass(frozen=True)
class Strings:
    """Strings of `low` to `high` characters that keep the rules; or only `values`."""

    low: int = 0
    high: int | None = None
    rules: frozenset[Rule] = frozenset()
    values: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()

    def intersection(self, other: "Strings") -> "Strings | None":
        """Return what both sets have; None: it is known to be nothing."""
        values = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            values = self.values & other.values
        highs = [one for one in (self.high, other.high) if one is not None]
        both = Strings(
            max(self.low, other.low), min(highs, default=None), self.rules | other.rules, values,
            self.excluded | other.excluded,
        )  # fmt: skip
        if both.high is not None and both.low > both.high:
            return None
        return both

    def loosened(self) -> "Strings":
        """Return the set in the widest reading of its rules."""
        return replace(self, rules=frozenset(replace(rule, loose=True) for rule in self.rules))

    def settled(self, budget: Budget) -> "Strings | None":
        """Return the set with its listed values judged; None: it is empty."""
        if self.values is None:
            if any(replace(rule, holds=not rule.holds) in self.rules for rule in self.rules):
                return None
            return None if self.rules and self._no_texts(budget) else self
        dfas = [rule.dfa(budget) for rule in self.rules]
        left = frozenset(
            one
            for one in self.values
            if one not in self.excluded
            and self.low <= len(one)
            and (self.high is None or len(one) <= self.high)
            and all(dfa.accepts(one) for dfa in dfas)
        )
        return Strings(values=left) if left else None

    def _no_texts(self, budget: Budget) -> bool:
        try:
            return self.dfa(budget, lengths=False).empty
        except TooManyCharacterStates:
            return False  # not found out

    def dfa(self, budget: Budget, *, lengths: bool = True) -> CharDFA:
        """Return the automaton of the set."""
        made = ANY_TEXT if self.values is None else texts(sorted(self.values))
        for rule in sorted(self.rules, key=repr):
            made = (
                rule.dfa(budget)
                if made is ANY_TEXT
                else made.intersection(rule.dfa(budget), budget)
            )
        if self.excluded:
            made = made.intersection(texts(sorted(self.excluded)).complement(), budget)
        longest = made.longest() if lengths and self.high is not None else None
        if lengths and (
            self.low
            or (self.high is not None and longest is None)
            or (longest is not None and longest > (self.high or 0))
        ):
            made = made.with_lengths(self.low, self.high, budget)
        return made


def string_grammar(strings: Strings, budget: Budget) -> Expression | None:
    """Say the strings of a set with rules, quoted; None: there are none.

    Lengths are counted where the automaton can; otherwise they are written out.
    """
    free = strings.dfa(budget, lengths=False)
    longest = free.longest()
    high = min((n for n in (longest, strings.high) if n is not None), default=None)
    most = LARGEST_COUNT if high is None else min(high, LARGEST_COUNT)
    bounded = strings.low > 0 or (strings.high is not None and high != longest)
    counts = free.highest_counts(strings.low, most) if bounded else None
    if free.empty:
        return None
    if not bounded:
        return text_grammar(free)
    if counts is None:
        written_out = strings.dfa(budget)
        return None if written_out.empty else text_grammar(written_out)
    if counts[0] < 0:
        return None
    counted = _Text(free, strings.low, counts)

    def add(net: NFA, start: int) -> int:
        return (counted if net.counting else _written_out(strings))(net, start)

    return add


def _written_out(strings: Strings) -> Expression:
    try:
        return text_grammar(strings.dfa(Budget()))
    except TooManyCharacterStates:
        msg = "a string's lengths take too many states"
        raise GrammarTooLarge(msg) from None


def text_grammar(dfa: CharDFA) -> Expression:
    """Say the strings of an automaton, quoted, each character in its usual spelling."""
    return _Text(dfa, 0, None)


class _Text:
    """Adds an automaton over characters, spelled in bytes; deterministic as it is."""

    def __init__(self, dfa: CharDFA, low: int, counts: list[int] | None) -> None:
        self._accepting = dfa.accepting
        self._low = low
        self._counts = counts
        self._inside: list[int] = []
        """The highest count of each node between characters' bytes."""
        self._edges: list[tuple[int, int, int, int]] = []
        self._known: dict[_Ways, int] = {}
        self._states = len(dfa.rows)
        for state, row in enumerate(dfa.rows):
            self._add_ways(state, _ways(row))

    def _add_ways(self, source: int, ways: "_Ways") -> None:
        for low, high, behind in ways:
            target = behind if isinstance(behind, int) else self._node(behind)
            self._edges.append((source, low, high, target))

    def _node(self, ways: "_Ways") -> int:
        node = self._known.get(ways)
        if node is None:
            node = self._known[ways] = self._states + len(self._inside)
            self._inside.append(0)
            self._add_ways(node, ways)
            if self._counts is not None:
                self._inside[node - self._states] = max(self._highest(one) for *_, one in ways)
        return node

    def _highest(self, behind: "int | _Ways") -> int:
        """Return the most rounds with which a text may be on the way there."""
        assert self._counts is not None
        if isinstance(behind, int):
            return self._counts[behind] - 1
        return self._inside[self._known[behind] - self._states]

    def __call__(self, net: NFA, start: int) -> int:
        size = self._states + len(self._inside)
        first = net.add_nodes(size)
        end = net.add_node()
        net.edges.append((start, 0x22, 0x22, first))
        net.edges += [(first + a, low, high, first + b) for a, low, high, b in self._edges]
        net.edges += [
            (first + state, 0x22, 0x22, end) for state, ends in enumerate(self._accepting) if ends
        ]
        if self._counts is not None:
            homes = (True,) * self._states + (False,) * len(self._inside)
            highs = (*self._counts, *self._inside)
            net.counters.append(CountedLoop(first, first + size - 1, self._low, homes, highs))
        return end


_Step = tuple[int, int]
_Ways = tuple[tuple[int, int, Any], ...]
"""(lowest byte, highest byte, the state or the further ways behind)."""


@functools.lru_cache(maxsize=8192)
def _ways(row: tuple[tuple[int, int, int], ...]) -> _Ways:
    """Return the ways on from a state as bytes."""
    spelled = [(steps, target) for low, high, target in row for steps in _spellings(low, high)]
    return _tree(spelled)


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
