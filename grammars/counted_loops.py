"""Counted loops in an automaton: what each of its rows has to know of the loop that it is in."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from falsework.grammars.determinize import AmbiguousCounters, Edges
from falsework.grammars.expressions import NFA

LOOP, HOME, LOW, HIGH, TIGHT = range(5)
"""The columns of `Loops.bounds`."""


class Loops(NamedTuple):
    """The counted loops of an automaton: of_row[r] is the row of `bounds` that is row r's.

    `bounds` (n, 5): the number of the loop or -1, whether a round of it ends there, the fewest
    rounds to leave it, the most to be there, the least of those of its rows.
    """

    of_row: NDArray[np.int32]
    bounds: NDArray[np.int32]


def loops_of(net: NFA) -> NDArray[np.int32]:
    """Return what `Loops.bounds` has, for each node, and for none in the last place."""
    loops = np.tile(np.array([-1, 0, 0, 0, 0], np.int32), (net.nodes + 1, 1))
    for number, loop in enumerate(net.counters):
        rows = loops[loop.first : loop.last + 1]
        rows[:, LOOP], rows[:, LOW], rows[:, TIGHT] = number, loop.low, min(loop.highs)
        rows[:, HOME], rows[:, HIGH] = loop.homes, loop.highs
    return loops


def refuse_empty(net: NFA, edges: Edges, loops: Loops) -> None:
    """Raise AmbiguousCounters where a loop has to be gone round and this alphabet can't."""
    single = [number for number, loop in enumerate(net.counters) if sum(loop.homes) == 1]
    of_row = loops.bounds[loops.of_row]
    turning = (of_row[:, HOME] == 1) & (of_row[:, LOW] > 0) & np.isin(of_row[:, LOOP], single)
    for row in turning.nonzero()[0]:
        onward = edges.targets[edges.starts[row] : edges.starts[row + 1]]
        if not (of_row[onward, LOOP] == of_row[row, LOOP]).any():
            raise AmbiguousCounters


def refuse_cut_loops(net: NFA, alphabet: NDArray[np.bool_]) -> None:
    """Raise AmbiguousCounters where the alphabet cuts a loop that counts by its states."""
    if alphabet.all():
        return
    loops = [loop for loop in net.counters if sum(loop.homes) > 1]
    for source, low, high, _ in net.edges.to_numpy().tolist() if loops else ():
        inside = any(loop.first <= source <= loop.last for loop in loops)
        if inside and not alphabet[low : high + 1].all():
            raise AmbiguousCounters
