"""From a parsed pattern to the automaton of the strings that it matches somewhere.

A thread is a node of the pattern's automaton with the look-aheads that still have to hold; a state
is a set of threads. Assertions are decided when the next character is known.
"""

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from falsework.grammars import code_points, ecma_regex
from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import CharDFA, TooManyCharacterStates, explored
from falsework.grammars.code_points import Ranges
from falsework.grammars.plain_patterns import plain_dfa, plain_jumps
from falsework.grammars.regex_tree import (
    Alternatives,
    Assertion,
    Characters,
    LookAhead,
    Pattern,
    Repeat,
    Sequence,
    UnsupportedPattern,
    holds_start,
)

NODE_LIMIT = 20_000

_Obligations = frozenset[tuple[int, int]]
_Thread = tuple[int, _Obligations]

_FREE: _Obligations = frozenset()
NO_ASSERTION = "an assertion in a look-ahead"


class _Context(NamedTuple):
    """What stands round a place: for word boundaries None where readings differ."""

    at_start: bool
    at_end: bool
    word_before: bool | None
    word_behind: bool | None


@dataclass
class _NFA:
    upper: bool
    budget: Budget
    edges: list[list[tuple[int, int, int]]] = field(default_factory=list)
    jumps: list[list[tuple[str | int, int]]] = field(default_factory=list)
    """Each with "" (always), the kind of an assertion, or the number of a look-ahead."""
    aheads: list[CharDFA] = field(default_factory=list)
    boundaries: bool = False

    def node(self) -> int:
        self.budget.spend()
        if len(self.edges) >= NODE_LIMIT:
            raise TooManyCharacterStates
        self.edges.append([])
        self.jumps.append([])
        return len(self.edges) - 1

    def add(self, part: Pattern, start: int) -> int:
        """Add a part behind a node and return where it ends."""
        if isinstance(part, Characters):
            end = self.node()
            self.edges[start] += [(low, high, end) for low, high in part.inside]
            return end
        if isinstance(part, Sequence):
            for one in part.parts:
                start = self.add(one, start)
            return start
        if isinstance(part, Alternatives):
            end = self.node()
            for one in part.parts:
                entry = self.node()
                self.jumps[start].append(("", entry))
                self.jumps[self.add(one, entry)].append(("", end))
            return end
        if isinstance(part, Repeat):
            return self._repeat(part, start)
        if isinstance(part, Assertion):
            return self._assertion(part.kind, start)
        return self._look_ahead(part, start)

    def _repeat(self, part: Repeat, start: int) -> int:
        for _ in range(part.low):
            start = self.add(part.part, start)
        if part.high is None:
            home, end = self.node(), self.node()
            self.jumps[start].append(("", home))
            self.jumps[self.add(part.part, home)].append(("", home))
            self.jumps[home].append(("", end))
            return end
        end = self.node()
        for _ in range(part.high - part.low):
            self.jumps[start].append(("", end))
            start = self.add(part.part, start)
        self.jumps[start].append(("", end))
        return end

    def _assertion(self, kind: str, start: int) -> int:
        end = self.node()
        self.jumps[start].append((kind, end))
        self.boundaries |= kind in "bB"
        if kind == "$" and self.upper:  # Python's `$` also stands before a last line break
            before = self.node()
            self.edges[start].append((10, 10, before))
            self.jumps[before].append(("$", end))
        return end

    def _look_ahead(self, part: LookAhead, start: int) -> int:
        reading = self.upper != part.negative
        inside = _compiled(part.part, reading, self.budget, anchored=True)
        end = self.node()
        self.jumps[start].append((len(self.aheads), end))
        self.aheads.append(inside.complement() if part.negative else inside)
        return end

    def close(self, threads: Iterable[_Thread], context: _Context) -> frozenset[_Thread]:
        """Follow the jumps that the context allows."""
        seen = set(threads)
        stack = list(seen)
        while stack:
            self.budget.spend()
            node, obligations = stack.pop()
            for kind, target in self.jumps[node]:
                if isinstance(kind, int):
                    if self.aheads[kind].empty:
                        continue
                    thread = (target, obligations | {(kind, 0)})
                elif self._holds(kind, context):
                    thread = (target, obligations)
                else:
                    continue
                if thread not in seen:
                    seen.add(thread)
                    stack.append(thread)
        return frozenset(seen)

    def _holds(self, kind: str, context: _Context) -> bool:
        if not kind:
            return True
        if kind == "^":
            return context.at_start
        if kind == "$":
            return context.at_end
        if context.word_before is None or context.word_behind is None:
            return self.upper
        return (context.word_before != context.word_behind) == (kind == "b")

    def moved(self, obligations: _Obligations, code: int) -> _Obligations | None:
        """Return what still has to hold behind a character; None: something doesn't."""
        left = set()
        for ahead, state in obligations:
            target = self.aheads[ahead].step(state, code)
            if target is None:
                return None
            row = self.aheads[ahead].rows[target]
            if not (
                self.aheads[ahead].accepting[target]
                and tuple((a, b) for a, b, t in row if t == target) == code_points.ANY
            ):
                left.add((ahead, target))
        return frozenset(left)


def pattern_dfa(pattern: str, budget: Budget, *, upper: bool = False) -> CharDFA:
    """Return the automaton of the strings that a pattern matches somewhere.

    `upper`: in any reading of it; otherwise in all readings. Raise UnsupportedPattern,
    InvalidPattern or TooManyCharacterStates.
    """
    known = _KEPT.get((pattern, upper))
    if known is None:
        known = _compiled(ecma_regex.parse(pattern, upper=upper), upper, budget, anchored=False)
        if len(_KEPT) >= _MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)), None)
        _KEPT[pattern, upper] = known
    return known


_KEPT: dict[tuple[str, bool], CharDFA] = {}
_MOST_KEPT = 256


def _compiled(tree: Pattern, upper: bool, budget: Budget, *, anchored: bool) -> CharDFA:
    """Compile; `anchored`: matched at the beginning (of the rest, in a look-ahead)."""
    net = _NFA(upper, budget)
    start = net.node()
    if not anchored:
        net.edges[start] += [(low, high, start) for low, high in code_points.ANY]
    entry = net.node()
    net.jumps[start].append(("", entry))
    final = net.add(tree, entry)
    if anchored and (net.boundaries or holds_start(tree)):
        raise UnsupportedPattern(NO_ASSERTION)
    if not net.aheads and not net.boundaries:
        seed = {(start, _FREE)}
        first, alone = (net.close(seed, _Context(True, end, False, False)) for end in (False, True))
        jumps = plain_jumps(net.jumps, [n for n, _ in first], (final, _FREE) in alone, final)
        made = plain_dfa(net.edges, jumps, final, budget)
        if made is not None:
            return made
    return _determinized(net, start, final, budget)


_State = tuple[frozenset[_Thread], bool, bool | None] | None
"""Threads before jumps are followed, whether at the start, what stands before; None: matched."""


def _determinized(net: _NFA, start: int, final: int, budget: Budget) -> CharDFA:
    @functools.cache
    def matched(state: _State) -> bool:
        if state is None:
            return True
        threads, at_start, before = state
        closed = net.close(threads, _Context(at_start, True, before, False))
        return any(
            node == final and all(net.aheads[a].accepting[s] for a, s in obligations)
            for node, obligations in closed
        )

    def ways(state: _State) -> Iterable[tuple[int, int, _State]]:
        if state is None:
            yield from ((low, high, None) for low, high in code_points.ANY)
            return
        threads, at_start, before = state
        found: list[tuple[int, int, _State]] = []
        for word_behind, inside in _BEHIND if net.boundaries else _ANYTHING_BEHIND:
            closed = net.close(threads, _Context(at_start, False, before, word_behind))
            found += _onward(net, closed, final, inside, word_behind)
        yield from sorted(found, key=lambda way: way[0])

    first: _State = (frozenset({(start, _FREE)}), True, False)
    return explored(first, ways, matched, budget)


_ASCII_WORD = code_points.shorthand("w", upper=False)
_ASCII_REST = code_points.intersection(code_points.complement(_ASCII_WORD), ((0, 0x7F),))
_BEHIND: tuple[tuple[bool | None, Ranges], ...] = (
    (True, _ASCII_WORD),
    (False, _ASCII_REST),
    (None, code_points.complement(((0, 0x7F),))),
)
_ANYTHING_BEHIND: tuple[tuple[bool | None, Ranges], ...] = ((False, code_points.ANY),)


def _onward(
    net: _NFA, closed: frozenset[_Thread], final: int, inside: Ranges, word: bool | None
) -> Iterable[tuple[int, int, _State]]:
    """Yield the ways on with a character of `inside`."""
    if (final, _FREE) in closed:
        yield from ((low, high, None) for low, high in inside)
        return
    moving: list[tuple[int, int, _Thread]] = []
    cuts = {bound for low, high in inside for bound in (low, high + 1)}
    for node, obligations in closed:
        edges = net.edges[node]
        if node == final:
            edges = [(low, high, final) for low, high in code_points.ANY]
        moving += [(low, high, (target, obligations)) for low, high, target in edges]
        for ahead, state in obligations:
            cuts |= {
                bound for low, high, _ in net.aheads[ahead].rows[state] for bound in (low, high + 1)
            }
    for low, high, threads in _swept(moving, cuts, inside):
        net.budget.spend(1 + len(threads) // 4)
        after = {(target, net.moved(obligations, low)) for target, obligations in threads}
        alive = frozenset((target, left) for target, left in after if left is not None)
        if alive:
            yield low, high, (alive, False, word if net.boundaries else False)


def _swept(
    moving: list[tuple[int, int, _Thread]], cuts: set[int], inside: Ranges
) -> Iterable[tuple[int, int, frozenset[_Thread]]]:
    """Yield ranges of `inside` without a cut in them, and the threads that all of a range moves."""
    changes: dict[int, list[tuple[int, _Thread]]] = {cut: [] for cut in cuts}
    for low, high, thread in moving:
        changes.setdefault(low, []).append((1, thread))
        changes.setdefault(high + 1, []).append((-1, thread))
    counts: dict[_Thread, int] = {}
    spans = iter(inside)
    span = next(spans, None)
    bounds = sorted(changes)
    for low, following in itertools.pairwise(bounds):
        for change, thread in changes[low]:
            counts[thread] = counts.get(thread, 0) + change
            if not counts[thread]:
                del counts[thread]
        while span is not None and span[1] < low:
            span = next(spans, None)
        if span is not None and span[0] <= low and counts:
            yield low, following - 1, frozenset(counts)
