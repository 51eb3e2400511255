"""A language as a table: from a net of expressions to a deterministic automaton over bytes.

A string of at most 500 characters isn't 500 copies of a character's states: its loop is in the
table once, and how many rounds a text has made is part of its state.
"""

import functools
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from falsework.grammars.counted_loops import (
    HIGH,
    HOME,
    LOOP,
    LOW,
    TIGHT,
    Loops,
    loops_of,
    refuse_cut_loops,
    refuse_empty,
)
from falsework.grammars.determinize import (
    AmbiguousCounters,
    Edges,
    TooManyStates,
    determinize,
)
from falsework.grammars.expressions import NFA, Expression, Fragment, GrammarTooLarge

_T = TypeVar("_T", bound=np.generic)

STATE_LIMIT = 150_000
START = 1
DEAD = 0

ALL_BYTES: NDArray[np.bool_] = np.ones(256, np.bool_)


class EmptyLanguage(ValueError):
    """No text at all satisfies the expression with this vocabulary."""


@dataclass(frozen=True, eq=False)
class DFA:
    """A deterministic automaton over bytes.

    `classes` (256, uint8) puts each byte into a class; `edges` lead from row to row; `final` (rows;
    bool) tells where a text may end. Row 0 is dead, row 1 the start.

    A state is row + rows * rounds.
    """

    classes: NDArray[np.uint8]
    edges: Edges
    final: NDArray[np.bool_]
    loops: Loops

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.final)

    @property
    def nbytes(self) -> int:
        """How much memory the automaton takes."""
        parts = (self.classes, self.final, *self.edges, *self.loops)
        return sum(part.nbytes for part in parts)

    @functools.cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many bytes each class has."""
        return np.bincount(self.classes)

    def step(self, state: int, text: bytes) -> int:
        """Return the state behind `text`, DEAD when it can't be said there."""
        said = np.frombuffer(text, np.uint8)
        return int(_step(self.edges, self.loops, self.classes, state, said))

    def accepts(self, text: str) -> bool:
        """Tell whether `text`, whole, is in the language."""
        return self.is_accepting(self.step(START, text.encode("utf-8", "surrogatepass")))

    def is_accepting(self, state: int) -> bool:
        """Tell whether a text may end in a state."""
        return bool(self.final[state % self.rows])

    def transitions(self, state: int) -> Iterator[tuple[int, int]]:
        """Return (class, next state) of each class of bytes that may follow a state."""
        rounds, row = divmod(state, self.rows)
        starts, lows, highs, _ = self.edges
        for edge in range(starts[row], starts[row + 1]):
            for number in range(lows[edge], highs[edge] + 1):
                following, count = transition(self.edges, self.loops, row, rounds, number)
                if following != DEAD:
                    yield number, following + self.rows * count

    def is_state(self, state: int) -> bool:
        """Tell whether there is such a state."""
        rounds, row = divmod(state, self.rows)
        return 0 <= rounds <= int(self._bounds(row)[HIGH])

    def representative(self, state: int, longest: int) -> int:
        """Return the first state that the next `longest` bytes can't tell from this one."""
        rounds, row = divmod(state, self.rows)
        bounds = self._bounds(row)
        low, tight = int(bounds[LOW]), int(bounds[TIGHT])
        if rounds + longest <= min(low, tight):
            return row
        if low <= rounds <= tight - longest:
            return row + self.rows * low
        return state

    def _bounds(self, row: int) -> NDArray[np.int32]:
        found: NDArray[np.int32] = self.loops.bounds[self.loops.of_row[row]]
        return found

    def to_bytes(self) -> bytes:
        """Return the automaton as bytes, for another process; `from_bytes` is the other way."""
        starts, lows, highs, targets = self.edges
        sizes = np.array([self.rows, len(targets), len(self.loops.bounds)], np.uint32)
        parts = (sizes, self.classes, lows, highs, self.final, starts, targets, *self.loops)
        # It repeats itself: what is kept and sent is a fraction of it.
        return zlib.compress(b"".join(part.tobytes() for part in parts), level=1)


def from_bytes(packed: bytes) -> DFA:
    """Return the automaton that `to_bytes` made these bytes of; raise ValueError for others."""
    try:
        stream = io.BytesIO(zlib.decompress(packed))
    except zlib.error as error:
        msg = "these bytes are no automaton"
        raise ValueError(msg) from error

    def taken(count: int, kind: type[_T]) -> NDArray[_T]:
        return np.frombuffer(stream.read(count * np.dtype(kind).itemsize), kind).copy()

    rows, count, kinds = (int(size) for size in taken(3, np.uint32))
    classes = taken(256, np.uint8)
    lows, highs, final = taken(count, np.uint8), taken(count, np.uint8), taken(rows, np.bool_)
    edges = Edges(taken(rows + 1, np.int32), lows, highs, taken(count, np.int32))
    loops = Loops(taken(rows, np.int32), taken(5 * kinds, np.int32).reshape(-1, 5))
    _check(DFA(classes, edges, final, loops))
    return DFA(classes, edges, final, loops)


def _check(made: DFA) -> None:
    """Raise ValueError where a part of an automaton leads outside it."""
    starts, lows, highs, targets = made.edges
    whole = (
        starts[0] == 0
        and starts[-1] == len(targets)
        and (np.diff(starts) >= 0).all()
        and (targets >= 0).all()
        and (targets < made.rows).all()
        and (lows <= highs).all()
        and (made.loops.of_row >= 0).all()
        and (made.loops.of_row < len(made.loops.bounds)).all()
    )
    if not whole:
        msg = "a part of the automaton leads nowhere"
        raise ValueError(msg)


@numba.njit(cache=True, nogil=True)
def transition(edges, loops, row, rounds, number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return row and rounds behind a byte of class `number`; row DEAD when it can't be said."""
    starts, lows, highs, targets = edges
    of_row, bounds = loops
    following = DEAD
    for edge in range(starts[row], starts[row + 1]):
        if number <= highs[edge]:
            if number >= lows[edge]:
                following = targets[edge]
            break
    here = of_row[row]
    loop = bounds[here, LOOP]
    if loop < 0 or following == DEAD:
        return following, 0
    there = of_row[following]
    if bounds[there, LOOP] != loop:
        return (following, 0) if rounds >= bounds[here, LOW] else (DEAD, 0)
    count = rounds + bounds[there, HOME]
    if count > bounds[there, HIGH]:
        return DEAD, 0
    return following, count


@numba.njit(cache=True, nogil=True)
def _step(edges, loops, classes, state, said):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    rows = len(loops[0])
    row, rounds = state % rows, state // rows
    for byte in said:
        row, rounds = transition(edges, loops, row, rounds, classes[byte])
        if row == DEAD:
            return DEAD
    return row + rows * rounds


def compile_dfa(
    expression: Expression,
    alphabet: NDArray[np.bool_] = ALL_BYTES,
    state_limit: int = STATE_LIMIT,
    *,
    counting: bool = True,
) -> DFA:
    """Compile an expression; `alphabet` (256; bool) says which bytes the vocabulary can spell.

    Without `counting` all loops are written out, which says the same. Raise GrammarTooLarge above
    `state_limit` rows, EmptyLanguage when nothing is left to say.
    """
    net = NFA(counting=counting)
    final = expression(net, 0)
    try:
        made = _compiled(net, final, alphabet, state_limit)
    except AmbiguousCounters:
        return compile_dfa(expression, alphabet, state_limit, counting=False)
    except TooManyStates:
        msg = f"it needs more than {state_limit} states"
        raise GrammarTooLarge(msg) from None
    if not made.edges.starts[START + 1] and not made.final[START]:
        msg = "nothing satisfies it"
        raise EmptyLanguage(msg)
    return made


def leaf_of(automaton: DFA) -> Fragment:
    """Return an automaton without loops as a leaf; its node n is row n + 1."""
    starts, lows, highs, targets = automaton.edges
    begins = np.searchsorted(automaton.classes, np.arange(257)).astype(np.int32)
    sources = np.repeat(np.arange(automaton.rows), np.diff(starts))
    leaf = Fragment(automaton.rows - 1, (), (automaton.final.nonzero()[0] - 1).tolist())
    bytes_ = (begins[lows], begins[highs.astype(np.int64) + 1] - 1)
    leaf.block = np.stack((sources - 1, *bytes_, targets - 1), axis=1).astype(np.int32)
    return leaf


def _compiled(net: NFA, final: int, alphabet: NDArray[np.bool_], state_limit: int) -> DFA:
    refuse_cut_loops(net, alphabet)
    classes, named = _classify(net, alphabet)
    audible = np.zeros(int(classes.max()) + 1, np.bool_)
    audible[classes[alphabet]] = True
    of_node = loops_of(net)
    edges, accepting, nodes = determinize(
        of_node[:-1, LOOP] >= 0, named, net.jumps.to_numpy(), final, audible, state_limit
    )
    if net.counters:
        # -1, the last, where a state isn't one counted node
        bounds, of_row = np.unique(of_node[nodes], axis=0, return_inverse=True)
        loops = Loops(of_row.reshape(-1).astype(np.int32), np.ascontiguousarray(bounds))
        refuse_empty(net, edges, loops)
    else:
        loops = Loops(np.zeros(len(accepting), np.int32), of_node[-1:].copy())
    return DFA(classes, edges, accepting, loops)


def _classify(net: NFA, alphabet: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Put bytes that no edge tells apart into one class, and edges in terms of classes.

    Every class is wholly inside or outside the alphabet.
    """
    edges = net.edges.to_numpy()
    bounds = np.zeros(257, np.bool_)
    bounds[edges[:, 1]] = True
    bounds[edges[:, 2] + 1] = True
    bounds[1:256] |= alphabet[1:] != alphabet[:-1]
    classes = np.cumsum(bounds[:256]) - int(bounds[0])
    edges[:, 1:3] = classes[edges[:, 1:3]]
    return classes.astype(np.uint8), edges
