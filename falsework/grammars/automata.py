"""A language as a table: from a net of expressions to a deterministic automaton over bytes."""

import functools
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from falsework.grammars.expressions import Expression, Net, TooLarge
from falsework.grammars.subsets import determinize, live

STATE_LIMIT = 60_000
START = 1
DEAD = 0

ALL_BYTES: NDArray[np.bool_] = np.ones(256, np.bool_)


class Unsayable(ValueError):
    """No text at all satisfies the expression with this vocabulary."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """A deterministic automaton over bytes.

    `classes` (256, uint8) puts each byte into a class; `table` (states, classes; int32) holds the
    next state; `accepting` (states; bool). State 0 is dead, state 1 the start.
    """

    classes: NDArray[np.uint8]
    table: NDArray[np.int32]
    accepting: NDArray[np.bool_]

    def step(self, state: int, text: bytes) -> int:
        """Return the state behind `text`, DEAD when it can't be said there."""
        table, classes = self.table, self.classes
        for byte in text:
            state = int(table[state, classes[byte]])
            if state == DEAD:
                return DEAD
        return state

    def accepts(self, text: str) -> bool:
        """Tell whether `text`, whole, is in the language."""
        return bool(self.accepting[self.step(START, text.encode("utf-8", "surrogatepass"))])

    def packed(self) -> bytes:
        """Return the automaton as bytes, for another process; `unpacked` is the other way."""
        states, classes = self.table.shape
        cells = np.uint16 if states < 2**16 else np.uint32
        sizes = np.array([states, classes, np.dtype(cells).itemsize], np.uint32)
        parts = (sizes, self.classes, self.accepting, self.table.astype(cells))
        return b"".join(part.tobytes() for part in parts)


def unpacked(packed: bytes) -> Automaton:
    """Return the automaton that `packed` made these bytes of."""
    stream = io.BytesIO(packed)
    states, classes, width = (int(size) for size in np.frombuffer(stream.read(12), np.uint32))
    byte_classes = np.frombuffer(stream.read(256), np.uint8)
    accepting = np.frombuffer(stream.read(states), np.bool_)
    cells = np.uint16 if width == 2 else np.uint32  # noqa: PLR2004 - bytes
    table = np.frombuffer(stream.read(), cells).reshape(states, classes).astype(np.int32)
    return Automaton(byte_classes, table, accepting)


def compile_expression(
    expression: Expression,
    alphabet: NDArray[np.bool_] = ALL_BYTES,
    state_limit: int = STATE_LIMIT,
) -> Automaton:
    """Compile an expression; `alphabet` (256; bool) says which bytes the vocabulary can spell.

    Raise TooLarge above `state_limit` states, Unsayable when nothing is left to say.
    """
    net = Net()
    final = expression(net, 0)
    classes, edges = _classify(net, alphabet)
    jumps = np.array(net.jumps, np.int32).reshape(-1, 2)
    made = determinize(net.nodes, edges, jumps, final, int(classes.max()) + 1, state_limit)
    if made is None:
        msg = f"it needs more than {state_limit} states"
        raise TooLarge(msg)
    table, accepting = made
    alive = live(table, accepting)
    if not alive[START]:
        msg = "nothing satisfies it"
        raise Unsayable(msg)
    table[~alive[table]] = DEAD
    return Automaton(classes, table, accepting)


def _classify(net: Net, alphabet: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Put bytes that no edge tells apart into one class, and edges in terms of classes.

    Classes of bytes outside the alphabet are named by no edge.
    """
    edges = np.array(net.edges, np.int32).reshape(-1, 4)
    bounds = np.zeros(257, np.bool_)
    bounds[edges[:, 1]] = True
    bounds[edges[:, 2] + 1] = True
    bounds[1:256] |= alphabet[1:] != alphabet[:-1]
    classes = np.cumsum(bounds[:256]) - int(bounds[0])
    named = edges.copy()
    named[:, 1] = classes[edges[:, 1]]
    named[:, 2] = classes[edges[:, 2]]
    if alphabet.all():
        return classes.astype(np.uint8), named
    # Every class is wholly inside or outside the alphabet; edges are cut at the silent ones.
    silent = frozenset(classes[~alphabet].tolist())
    cut = [
        (source, low, high, target)
        for source, first, last, target in named.tolist()
        for low, high in _audible(first, last, silent)
    ]
    return classes.astype(np.uint8), np.array(cut, np.int32).reshape(-1, 4)


@functools.lru_cache(maxsize=4096)
def _audible(first: int, last: int, silent: frozenset[int]) -> tuple[tuple[int, int], ...]:
    """Cut the classes first..last into runs without silent ones."""
    runs: list[tuple[int, int]] = []
    for number in range(first, last + 1):
        if number in silent:
            continue
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)
