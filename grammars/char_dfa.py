"""Deterministic automata over code points: the strings that a pattern or a format admits.

They can be intersected, subtracted and complemented, which automata over spelled bytes can't: a
character may be spelled in several ways.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from falsework.grammars import code_points
from falsework.grammars.budget import Budget

Ints = NDArray[np.int32]
Edge = tuple[int, int, int]
"""The lowest and the highest code point, and the state behind."""

S = TypeVar("S")

STATE_LIMIT = 6000
LOW_LIMIT = 256
"""Up to which minLength states tell whether it can still be reached."""
_FAR = 2**40


class TooManyCharacterStates(ValueError):
    """A string automaton has more states than the limit."""


class CharDFA:
    """`rows[state]` are the edges of a state, disjoint and sorted; state 0 is the start."""

    def __init__(self, rows: tuple[tuple[Edge, ...], ...], accepting: tuple[bool, ...]) -> None:
        """`accepting` (states): whether a text may end there."""
        self.rows = rows
        self.accepting = accepting

    @classmethod
    def of_arrays(cls, edges: Ints, starts: Ints, accepting: Iterable[bool]) -> "CharDFA":
        """Return an automaton by its `arrays`; its rows are made when they are asked for."""
        made = cls.__new__(cls)
        made.arrays = edges, starts
        made.accepting = tuple(accepting)
        return made

    @functools.cached_property
    def rows(self) -> tuple[tuple[Edge, ...], ...]:
        """The edges of each state."""
        edges, starts = self.arrays
        rows = list(map(tuple, edges.tolist()))
        bounds = itertools.pairwise(starts.tolist())
        return tuple(tuple(rows[first:last]) for first, last in bounds)

    @functools.cached_property
    def arrays(self) -> tuple[Ints, Ints]:
        """The edges as rows (lowest, highest, target), and where each state's begin."""
        counts = [0, *(len(row) for row in self.rows)]
        edges = np.array([edge for row in self.rows for edge in row], np.int32).reshape(-1, 3)
        return edges, np.cumsum(counts).astype(np.int32)

    def step(self, state: int, code: int) -> int | None:
        """Return the state behind a character; None: there is none."""
        for low, high, target in self.rows[state]:
            if low <= code <= high:
                return target
        return None

    def accepts(self, text: str) -> bool:
        """Tell whether a text is in the language."""
        state: int | None = 0
        for one in text:
            state = self.step(state, ord(one)) if state is not None else None
        return state is not None and self.accepting[state]

    @property
    def empty(self) -> bool:
        """Whether nothing is in the language (automata are trimmed when they are made)."""
        return not any(self.accepting)

    def complement(self) -> "CharDFA":
        """Return the automaton of all other texts."""
        sink = len(self.rows)
        rows = []
        for row in self.rows:
            free = code_points.complement(tuple((low, high) for low, high, _ in row))
            rows.append(tuple(sorted((*row, *((low, high, sink) for low, high in free)))))
        rows.append(tuple((low, high, sink) for low, high in code_points.ANY))
        return trimmed(rows, [not one for one in self.accepting] + [True])

    def intersection(self, other: "CharDFA", budget: Budget) -> "CharDFA":
        """Return the automaton of the texts that are in both languages."""
        # Where schemas are only planned, numba isn't loaded.
        from falsework.grammars.char_product import product, trim  # noqa: PLC0415

        work = 16 * budget.left
        pairs, edges, starts = product(self.arrays, other.arrays, STATE_LIMIT, work)
        if not len(pairs):
            raise TooManyCharacterStates
        budget.spend(len(edges) // 16)
        ends = np.array(self.accepting)[pairs[:, 0]] & np.array(other.accepting)[pairs[:, 1]]
        kept, begins, accepting = trim(edges, starts, ends)
        return CharDFA.of_arrays(kept, begins, accepting.tolist())

    def union(self, other: "CharDFA", budget: Budget) -> "CharDFA":
        """Return the automaton of the texts that are in either language."""
        return self.complement().intersection(other.complement(), budget).complement()

    def with_lengths(self, low: int, high: int | None, budget: Budget) -> "CharDFA":
        """Return the automaton of the texts of `low` to `high` characters."""
        most = low if high is None else high

        def ways(at: tuple[int, int]) -> Iterable[tuple[int, int, tuple[int, int]]]:
            state, count = at
            if count == most and high is not None:
                return
            for lowest, highest, target in self.rows[state]:
                yield lowest, highest, (target, min(count + 1, most))

        def ends(at: tuple[int, int]) -> bool:
            return self.accepting[at[0]] and at[1] >= low

        return explored((0, 0), ways, ends, budget)

    def highest_counts(self, low: int, high: int) -> list[int] | None:
        """Return for each state with how many characters, at most, a text may come there.

        From there it can end with `low` to `high` characters. None where a text with fewer than
        `low` might have no such end: that isn't said by a highest count.
        """
        if low > LOW_LIMIT:
            return None
        # least[s]: the fewest characters to an end from s; then to an end behind at least n more.
        least = self._distances()
        counts = [high - one for one in least]
        further = [least]
        for _ in range(low):
            before = further[-1]
            further.append(
                [1 + min((before[t] for *_, t in row), default=_FAR) for row in self.rows]
            )
        reached = {0}
        for count in range(low):
            if any(count + further[low - count][state] > high for state in reached):
                return None
            reached = {target for state in reached for *_, target in self.rows[state]}
        return counts

    def _distances(self) -> list[int]:
        """Return the fewest characters from each state to an end."""
        sources: list[list[int]] = [[] for _ in self.rows]
        for state, row in enumerate(self.rows):
            for *_, target in row:
                sources[target].append(state)
        least = [0 if ends else -1 for ends in self.accepting]
        queue = [state for state, ends in enumerate(self.accepting) if ends]
        for state in queue:
            for source in sources[state]:
                if least[source] < 0:
                    least[source] = least[state] + 1
                    queue.append(source)
        return least

    def minimal(self, rounds: int = 16) -> "CharDFA":
        """Return the automaton with as few states as can be, itself where `rounds` don't do."""
        groups = [int(one) for one in self.accepting]
        count = len(set(groups))
        for _ in range(rounds):
            signatures = [
                (groups[state], _joined((low, high, groups[t]) for low, high, t in row))
                for state, row in enumerate(self.rows)
            ]
            numbers: dict[object, int] = {}
            groups = [numbers.setdefault(one, len(numbers)) for one in signatures]
            if len(numbers) == count:
                firsts = {number: state for state, number in reversed(list(enumerate(groups)))}
                rows = tuple(
                    _joined((low, high, groups[t]) for low, high, t in self.rows[firsts[number]])
                    for number in range(count)
                )
                return CharDFA(rows, tuple(self.accepting[firsts[n]] for n in range(count)))
            count = len(numbers)
        return self

    def longest(self) -> int | None:
        """Return the length of the longest text; None: there is no longest."""
        lengths: dict[int, int] = {}
        visiting: set[int] = set()
        stack = [(0, False)]
        while stack:
            state, left = stack.pop()
            if left:
                visiting.discard(state)
                lengths[state] = max((1 + lengths[t] for *_, t in self.rows[state]), default=0)
                continue
            if state in lengths:
                continue
            visiting.add(state)
            stack.append((state, True))
            for *_, target in self.rows[state]:
                if target in visiting:
                    return None
                if target not in lengths:
                    stack.append((target, False))
        return lengths[0]


def _joined(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Join neighbouring edges with one target."""
    joined: list[Edge] = []
    for low, high, target in edges:
        if joined and joined[-1][1] == low - 1 and joined[-1][2] == target:
            joined[-1] = (joined[-1][0], high, target)
        else:
            joined.append((low, high, target))
    return tuple(joined)


ANY_TEXT = CharDFA((tuple((low, high, 0) for low, high in code_points.ANY),), (True,))
NO_TEXT = CharDFA(((),), (False,))


def texts(values: Iterable[str]) -> CharDFA:
    """Return the automaton of exactly these texts."""
    rows: list[dict[int, int]] = [{}]
    accepting = [False]
    for value in values:
        state = 0
        for one in value:
            if ord(one) not in rows[state]:
                rows[state][ord(one)] = len(rows)
                rows.append({})
                accepting.append(False)
            state = rows[state][ord(one)]
        accepting[state] = True
    return CharDFA(
        tuple(tuple((code, code, t) for code, t in sorted(row.items())) for row in rows),
        tuple(accepting),
    )


def explored(
    start: S,
    ways: Callable[[S], Iterable[tuple[int, int, S]]],
    ends: Callable[[S], bool],
    budget: Budget,
    limit: int = STATE_LIMIT,
) -> CharDFA:
    """Number the states that can be reached; `ways` are disjoint, in order."""
    numbers = {start: 0}
    queue = [start]
    rows = []
    for state in queue:
        row: list[Edge] = []
        for low, high, target in ways(state):
            budget.spend()
            if target not in numbers:
                numbers[target] = len(numbers)
                queue.append(target)
                if len(queue) > limit:
                    raise TooManyCharacterStates
            number = numbers[target]
            if row and row[-1][1] == low - 1 and row[-1][2] == number:
                row[-1] = (row[-1][0], high, number)
            else:
                row.append((low, high, number))
        rows.append(tuple(row))
    return trimmed(rows, [ends(state) for state in queue])


def trimmed(rows: list[tuple[Edge, ...]], accepting: list[bool]) -> CharDFA:
    """Leave out the states that no text ends behind."""
    sources: list[list[int]] = [[] for _ in rows]
    for state, row in enumerate(rows):
        for *_, target in row:
            sources[target].append(state)
    alive = set()
    stack = [state for state, ends in enumerate(accepting) if ends]
    while stack:
        state = stack.pop()
        if state not in alive:
            alive.add(state)
            stack += sources[state]
    if 0 not in alive:
        return NO_TEXT
    kept = [state for state in range(len(rows)) if state in alive]
    numbers = {state: number for number, state in enumerate(kept)}
    return CharDFA(
        tuple(
            tuple((low, high, numbers[t]) for low, high, t in rows[state] if t in alive)
            for state in kept
        ),
        tuple(accepting[state] for state in kept),
    )
