"""Sets of strings: lengths, patterns, formats and listed values, and how they are spelled."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from falsework.grammars import json_values
from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import ANY_TEXT, CharDFA, texts
from falsework.grammars.code_points import Ranges
from falsework.grammars.expressions import NFA, Expression, choice, literal
from falsework.grammars.pattern_dfa import pattern_dfa
from falsework.grammars.string_formats import format_dfa, loose_format_dfa


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
            if self.rules and self.dfa(budget, lengths=False).empty:
                return None
            return self
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


def string_grammar(strings: Strings, notation: json_values.Notation, budget: Budget) -> Expression:
    """Say the strings of a set."""
    if strings.values is not None and not strings.rules:
        return choice([json_values.constant(one, notation) for one in sorted(strings.values)])
    if not strings.rules and not strings.excluded:
        return json_values.string(notation, strings.low, strings.high)
    return text_grammar(strings.dfa(budget))


def text_grammar(dfa: CharDFA) -> Expression:
    """Say the strings of an automaton, quoted, each character in its usual spelling."""

    def add(net: NFA, start: int) -> int:
        first = net.add_nodes(len(dfa.rows))
        end = net.add_node()
        net.edges.append((start, 0x22, 0x22, first))
        tails: dict[tuple[object, int], int] = {}
        for state, row in enumerate(dfa.rows):
            if dfa.accepting[state]:
                net.edges.append((first + state, 0x22, 0x22, end))
            for low, high, target in row:
                for steps in _spellings(low, high):
                    _spell(net, first + state, steps, first + target, tails)
        return end

    return add


_Step = tuple[int, int]


def _spell(
    net: NFA,
    source: int,
    steps: tuple[_Step, ...],
    target: int,
    tails: dict[tuple[object, int], int],
) -> None:
    """Add the way of some bytes; ways with the same end share their nodes."""
    for number, (low, high) in enumerate(steps):
        rest = steps[number + 1 :]
        if not rest:
            net.edges.append((source, low, high, target))
            return
        known = (rest, target)
        node = tails.get(known)
        if node is not None:
            net.edges.append((source, low, high, node))
            return
        tails[known] = node = net.add_node()
        net.edges.append((source, low, high, node))
        source = node


_MUST_ESCAPE: Ranges = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C))


@functools.lru_cache(maxsize=4096)
def _spellings(low: int, high: int) -> tuple[tuple[_Step, ...], ...]:
    """Return how the characters low..high are spelled, each way as ranges of bytes."""
    found = []
    for first, last in _MUST_ESCAPE:
        for code in range(max(low, first), min(high, last) + 1):
            found.append(tuple((byte, byte) for byte in json.dumps(chr(code))[1:-1].encode()))
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
