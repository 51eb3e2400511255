"""A language as a table: from a net of expressions to a deterministic automaton over bytes.

A string of at most 500 characters isn't 500 copies of a character's states: its loop is in the
table once, and how many rounds a text has made is part of its state.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from falsework.grammars.determinize import (
    AmbiguousCounters,
    TooManyStates,
    determinize,
)
from falsework.grammars.expressions import NFA, Expression, Fragment, GrammarTooLarge

STATE_LIMIT = 150_000
START = 1
DEAD = 0

ALL_BYTES: NDArray[np.bool_] = np.ones(256, np.bool_)

_LOOP, _HOME, _LOW, _HIGH, _TIGHT = range(5)
"""The columns of `Automaton.loops`."""


class EmptyLanguage(ValueError):
    """No text at all satisfies the expression with this vocabulary."""


@dataclass(frozen=True, eq=False)
class DFA:
    """A deterministic automaton over bytes.

    `classes` (256, uint8) puts each byte into a class; `table` (rows, classes; int32) holds the
    next row; `final` (rows; bool) tells where a text may end. Row 0 is dead, row 1 the start.
    `loops` (rows, 5; int32): the counted loop that a row belongs to or -1, whether a round of it
    ends there, the fewest rounds to leave it, the most to be there, the least of those of its rows.

    A state is row + len(table) * rounds.
    """

    classes: NDArray[np.uint8]
    table: NDArray[np.int32]
    final: NDArray[np.bool_]
    loops: NDArray[np.int32]

    def step(self, state: int, text: bytes) -> int:
        """Return the state behind `text`, DEAD when it can't be said there."""
        said = np.frombuffer(text, np.uint8)
        return int(_step(self.table, self.loops, self.classes, state, said))

    def accepts(self, text: str) -> bool:
        """Tell whether `text`, whole, is in the language."""
        return self.is_accepting(self.step(START, text.encode("utf-8", "surrogatepass")))

    def is_accepting(self, state: int) -> bool:
        """Tell whether a text may end in a state."""
        return bool(self.final[state % len(self.table)])

    def transitions(self, state: int) -> Iterator[tuple[int, int]]:
        """Return (class, next state) of each class of bytes that may follow a state."""
        rounds, row = divmod(state, len(self.table))
        for number in self.table[row].nonzero()[0].tolist():
            following, count = transition(self.table, self.loops, row, rounds, number)
            if following != DEAD:
                yield number, following + len(self.table) * count

    def is_state(self, state: int) -> bool:
        """Tell whether there is such a state."""
        rounds, row = divmod(state, len(self.table))
        return 0 <= rounds <= int(self.loops[row, _HIGH])

    def representative(self, state: int, longest: int) -> int:
        """Return the first state that the next `longest` bytes can't tell from this one."""
        rounds, row = divmod(state, len(self.table))
        low, tight = int(self.loops[row, _LOW]), int(self.loops[row, _TIGHT])
        if rounds + longest <= min(low, tight):
            return row
        if low <= rounds <= tight - longest:
            return row + len(self.table) * low
        return state

    def to_bytes(self) -> bytes:
        """Return the automaton as bytes, for another process; `unpacked` is the other way."""
        rows, classes = self.table.shape
        cells = np.uint16 if rows < 2**16 else np.uint32
        sizes = np.array([rows, classes, np.dtype(cells).itemsize], np.uint32)
        parts = (sizes, self.classes, self.final, self.loops, self.table.astype(cells))
        # A table repeats itself: what is kept and sent is a tenth of it.
        return zlib.compress(b"".join(part.tobytes() for part in parts), level=1)


def from_bytes(packed: bytes) -> DFA:
    """Return the automaton that `packed` made these bytes of; raise ValueError for others."""
    try:
        stream = io.BytesIO(zlib.decompress(packed))
    except zlib.error as error:
        msg = "these bytes are no automaton"
        raise ValueError(msg) from error
    rows, classes, width = (int(size) for size in np.frombuffer(stream.read(12), np.uint32))
    byte_classes = np.frombuffer(stream.read(256), np.uint8)
    final = np.frombuffer(stream.read(rows), np.bool_)
    loops = np.frombuffer(stream.read(20 * rows), np.int32).reshape(rows, 5)
    cells = np.uint16 if width == 2 else np.uint32  # noqa: PLR2004 - bytes
    table = np.frombuffer(stream.read(), cells).reshape(rows, classes).astype(np.int32)
    if not (table < rows).all() or not (byte_classes < classes).all():
        msg = "a cell of the table leads nowhere"
        raise ValueError(msg)
    return DFA(byte_classes, table, final, loops)


@numba.njit(cache=True, nogil=True)
def transition(table, loops, row, rounds, number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return row and rounds behind a byte of class `number`; row DEAD when it can't be said."""
    following = table[row, number]
    loop = loops[row, _LOOP]
    if loop < 0 or following == DEAD:
        return following, 0
    if loops[following, _LOOP] != loop:
        return (following, 0) if rounds >= loops[row, _LOW] else (DEAD, 0)
    count = rounds + loops[following, _HOME]
    if count > loops[following, _HIGH]:
        return DEAD, 0
    return following, count


@numba.njit(cache=True, nogil=True)
def _step(table, loops, classes, state, said):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    row, rounds = state % len(table), state // len(table)
    for byte in said:
        row, rounds = transition(table, loops, row, rounds, classes[byte])
        if row == DEAD:
            return DEAD
    return row + len(table) * rounds


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
    if not made.table[START].any() and not made.final[START]:
        msg = "nothing satisfies it"
        raise EmptyLanguage(msg)
    return made


def precompiled(part: Expression) -> Expression:
    """The part, without counted loops, as a leaf that is compiled when it is first said."""
    kept: list[Fragment] = []

    def add(net: NFA, start: int) -> int:
        if not kept:
            made = compile_dfa(part, counting=False)
            kept.append(Fragment.of_table(
                made.table[1:, made.classes] - 1, made.final[1:].nonzero()[0].tolist()
            ))  # fmt: skip
        return net.embed(start, kept[0])

    return add


def _compiled(net: NFA, final: int, alphabet: NDArray[np.bool_], state_limit: int) -> DFA:
    _refuse_cut_loops(net, alphabet)
    classes, edges = _classify(net, alphabet)
    audible = np.zeros(int(classes.max()) + 1, np.bool_)
    audible[classes[alphabet]] = True
    of_node = _loops(net)
    table, accepting, nodes = determinize(
        of_node[:-1, _LOOP] >= 0, edges, net.jumps.to_numpy(), final, audible, state_limit
    )
    loops = of_node[nodes]  # -1, the last, where a state isn't one counted node
    if net.counters:
        _refuse_empty(net, table, loops)
    return DFA(classes, table, accepting, loops)


def _loops(net: NFA) -> NDArray[np.int32]:
    """Return what `Automaton.loops` has, for each node, and for none in the last place."""
    loops = np.tile(np.array([-1, 0, 0, 0, 0], np.int32), (net.nodes + 1, 1))
    for number, loop in enumerate(net.counters):
        rows = loops[loop.first : loop.last + 1]
        rows[:, _LOOP], rows[:, _LOW], rows[:, _TIGHT] = number, loop.low, min(loop.highs)
        rows[:, _HOME], rows[:, _HIGH] = loop.homes, loop.highs
    return loops


def _refuse_empty(net: NFA, table: NDArray[np.int32], loops: NDArray[np.int32]) -> None:
    """Raise AmbiguousCounters where a loop has to be gone round and this alphabet can't."""
    single = [number for number, loop in enumerate(net.counters) if sum(loop.homes) == 1]
    turning = (loops[:, _HOME] == 1) & (loops[:, _LOW] > 0) & np.isin(loops[:, _LOOP], single)
    for row in turning.nonzero()[0]:
        onward = table[row][table[row] != DEAD]
        if not (loops[onward, _LOOP] == loops[row, _LOOP]).any():
            raise AmbiguousCounters


def _refuse_cut_loops(net: NFA, alphabet: NDArray[np.bool_]) -> None:
    """Raise AmbiguousCounters where the alphabet cuts a loop that counts by its states."""
    if alphabet.all():
        return
    loops = [loop for loop in net.counters if sum(loop.homes) > 1]
    for source, low, high, _ in net.edges.to_numpy().tolist() if loops else ():
        inside = any(loop.first <= source <= loop.last for loop in loops)
        if inside and not alphabet[low : high + 1].all():
            raise AmbiguousCounters


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
