"""The subset construction, compiled by numba: sets of nodes become states, without Python objects.

Sets lie one after the other in a `pool`: set s is pool[begins[s]:begins[s + 1]], sorted. An open
hash table `slots` finds the state of a set that is there already. State 0 is dead, 1 the start.

A node inside a counted loop has to be alone in its set: then one count says how many rounds a text
has made. Where it isn't, the loop has to be written out.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from falsework.grammars.nfa_order import Flags, Ints, add_run, alive_nodes, grouped, in_order

_POOL_LIMIT = 8_000_000
"""How many members all sets together may have: 32 MB."""
_WORK_LIMIT = 200_000_000
"""How many edges and jumps are looked at before it is given up: less than a second."""


_FEW = 24
"""Up to how many members are sorted by insertion."""
_DONE, _LARGE, _MET = range(3)


class TooManyStates(ValueError):
    """The deterministic automaton is larger than the limit."""


class AmbiguousCounters(ValueError):
    """Whether a text stands inside a counted loop isn't known from the text alone."""


class Edges(NamedTuple):
    """The ways on from each state, in order: classes lows[e] to highs[e] lead to targets[e].

    Those of state s are starts[s] to starts[s + 1].
    """

    starts: Ints
    lows: NDArray[np.uint8]
    highs: NDArray[np.uint8]
    targets: Ints


class DFATables(NamedTuple):
    """A deterministic automaton; `nodes` (states): the counted node that a state is, or -1."""

    edges: Edges
    accepting: Flags
    nodes: Ints


def determinize(  # noqa: PLR0913 - a net is six things
    counted: Flags,
    edges: Ints,
    jumps: Ints,
    final: int,
    audible: Flags,
    limit: int,
    absorbing: int = -1,
) -> DFATables:
    """Return the deterministic automaton; raise TooManyStates or AmbiguousCounters.

    `counted` (nodes): whether a node is inside a counted loop; `edges` (n, 4): source, lowest
    class, highest class, target; `jumps` (n, 2): source, target; `audible` (classes): whether
    the bytes of a class can be said; `absorbing`: a node behind which all may be said, whatever
    others are in the set. From every state but 0 an accepting one can be reached.
    """
    nodes = len(counted)
    if not audible.all():
        heard = np.concatenate(([0], np.cumsum(audible)))
        edges = edges[heard[edges[:, 2] + 1] > heard[edges[:, 1]]]
    alive = alive_nodes(nodes, edges, jumps, final)
    edges, edge_starts, sure = in_order(edges[alive[edges[:, 3]]], nodes)
    jumps = jumps[alive[jumps[:, 1]]]
    order, jump_starts = grouped(jumps[:, 0], nodes)
    net = (
        np.ascontiguousarray(edges[:, 1:]),
        edge_starts,
        jumps[order, 1],
        jump_starts,
        final,
        absorbing,
    )
    runs, starts, accepting, alone, outcome = _construct(net, counted, sure, audible, limit)
    if outcome == _LARGE:
        raise TooManyStates
    if outcome == _MET:
        raise AmbiguousCounters
    lows, highs = runs[:, 0].astype(np.uint8), runs[:, 1].astype(np.uint8)
    return DFATables(Edges(starts, lows, highs, runs[:, 2].copy()), accepting, alone)


@numba.njit(cache=True, nogil=True)
def _close(net, seeds, count, scratch, found):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, C901
    """Follow jumps from the seeds; collect the nodes that matter (with edges, or final), sorted."""
    _, edge_starts, jumps, jump_starts, final, absorbing = net
    marks, stack, work = scratch
    marks[0] += 1
    mark = marks[0]
    depth = 0
    for i in range(count):
        if marks[seeds[i] + 1] != mark:
            marks[seeds[i] + 1] = mark
            stack[depth] = seeds[i]
            depth += 1
    size = 0
    while depth:
        depth -= 1
        node = stack[depth]
        if node == absorbing:
            found[0] = node
            return 1
        if edge_starts[node + 1] > edge_starts[node] or node == final:
            found[size] = node
            size += 1
        work[0] += 4 + jump_starts[node + 1] - jump_starts[node]
        for i in range(jump_starts[node], jump_starts[node + 1]):
            target = jumps[i]
            if marks[target + 1] != mark:
                marks[target + 1] = mark
                stack[depth] = target
                depth += 1
    if size > _FEW:
        found[:size] = np.sort(found[:size])
    else:
        for i in range(1, size):
            node, k = found[i], i
            while k > 0 and found[k - 1] > node:
                found[k] = found[k - 1]
                k -= 1
            found[k] = node
    return size


@numba.njit(cache=True, nogil=True)
def _targets(net, members, low, scratch, seeds):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Collect into `seeds` where the members go with class `low`; return how many."""
    edges, edge_starts = net[0], net[1]
    marks, _, work = scratch
    marks[0] += 1
    count = 0
    for node in members:
        work[0] += 1 + edge_starts[node + 1] - edge_starts[node]
        for e in range(edge_starts[node], edge_starts[node + 1]):
            target = edges[e, 2]
            if edges[e, 0] <= low <= edges[e, 1] and marks[target + 1] != marks[0]:
                marks[target + 1] = marks[0]
                seeds[count] = target
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _cut(net, members, audible, cuts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Mark in `cuts` the classes where a new run of equal targets may begin."""
    edges, edge_starts = net[0], net[1]
    cuts[:] = False
    for node in members:
        for e in range(edge_starts[node], edge_starts[node + 1]):
            cuts[edges[e, 0]] = True
            cuts[edges[e, 1] + 1] = True
    for c in range(1, len(audible)):
        cuts[c] |= audible[c] != audible[c - 1]


@numba.njit(cache=True, nogil=True)
def _find(slots, pool, begins, members, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the slot that holds this set, or the free one where it belongs (FNV-1a)."""
    digest = np.uint64(14695981039346656037)
    for i in range(count):
        digest = (digest ^ np.uint64(members[i])) * np.uint64(1099511628211)
    digest ^= digest >> np.uint64(29)
    slot = np.int64(digest & np.uint64(len(slots) - 1))
    while slots[slot] != 0:
        first = begins[slots[slot]]
        if begins[slots[slot] + 1] - first == count:
            i = 0
            while i < count and pool[first + i] == members[i]:
                i += 1
            if i == count:
                break
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@numba.njit(cache=True, nogil=True)
def _rehash(slots, pool, begins, states):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return a table of twice the size that holds the states 1 to `states`."""
    larger = np.zeros(2 * len(slots), np.int32)
    for state in range(1, states):
        members = pool[begins[state] : begins[state + 1]]
        larger[_find(larger, pool, begins, members, len(members))] = state
    return larger


@numba.njit(cache=True, nogil=True)
def _construct(net, counted, sure, audible, limit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, C901, PLR0912, PLR0915
    """`sure` (nodes): whether no two of its edges share a class; they are in order."""
    edges, edge_starts, final, nodes, classes = net[0], net[1], net[4], len(counted), len(audible)
    absorbing = net[5]
    rows = min(nodes + 2, 1 << 14)  # about as many states as nodes
    runs, written = np.empty((len(edges) + 16, 3), np.int32), 0
    starts = np.zeros(rows + 2, np.int32)
    accepting = np.zeros(rows, np.bool_)
    alone = np.full(rows, -1, np.int32)
    pool = np.empty(2 * rows, np.int32)
    begins = np.zeros(rows + 2, np.int64)
    slots = np.zeros(1024, np.int32)
    of_node = np.zeros(nodes, np.int32)  # the state behind an edge to one node only, once known
    work = np.zeros(1, np.int64)
    scratch = (np.zeros(nodes + 1, np.int64), np.empty(nodes + 1, np.int32), work)
    seeds = np.zeros(nodes + 1, np.int32)
    members = np.empty(nodes + 1, np.int32)
    cuts = np.zeros(classes + 1, np.bool_)
    states, state, count, low, high = 1, 0, 1, 0, 0
    # Of a state that is one sure node: the edges that are still to be taken.
    alone_in_state, edge, last_edge = False, 0, 0
    while True:
        # Behind one run of classes of `state` (first of all: behind nothing) lies this set.
        target = of_node[seeds[0]] if count == 1 else 0
        if target == 0:
            size = _close(net, seeds, count, scratch, members)
            slot = _find(slots, pool, begins, members, size)
            target = slots[slot]
        if target == 0:
            full = states > limit or begins[states] + size > _POOL_LIMIT
            if full or work[0] > _WORK_LIMIT:
                return runs[:0], starts[:0], accepting[:0], alone[:0], _LARGE
            if states == len(accepting):
                starts = np.concatenate((starts, np.zeros_like(starts)))
                accepting = np.concatenate((accepting, np.zeros_like(accepting)))
                alone = np.concatenate((alone, np.full_like(alone, -1)))
                begins = np.concatenate((begins, np.zeros_like(begins)))
            while begins[states] + size > len(pool):
                pool = np.concatenate((pool, np.empty_like(pool)))
            for i in range(size):
                pool[begins[states] + i] = members[i]
                accepting[states] |= members[i] == final or members[i] == absorbing
                if counted[members[i]]:
                    if size > 1:
                        return runs[:0], starts[:0], accepting[:0], alone[:0], _MET
                    alone[states] = members[i]
            begins[states + 1] = begins[states] + size
            target = slots[slot] = states
            states += 1
            if 2 * states > len(slots):
                slots = _rehash(slots, pool, begins, states)
        if count == 1:
            of_node[seeds[0]] = target
        if state:
            run = (low, high, target)
            runs, written = add_run(runs, written, starts[state], run, audible)
        # On to the next run that leads anywhere, of this state or of the next.
        count, low = 0, high
        while count == 0:
            if alone_in_state and edge < last_edge:
                low, high = edges[edge, 0], edges[edge, 1] + 1
                seeds[0], count = edges[edge, 2], 1
                edge += 1
                break
            while low < classes and not alone_in_state and not (cuts[low] and audible[low]):
                low += 1
            if state == 0 or alone_in_state or low == classes:
                state += 1
                starts[state] = written
                if state == states:
                    found = (runs[:written], starts[: states + 1], accepting[:states])
                    return found[0], found[1], found[2], alone[:states], _DONE
                here = pool[begins[state] : begins[state + 1]]
                low = 0
                alone_in_state = len(here) == 1 and sure[here[0]]
                if alone_in_state:
                    edge, last_edge = edge_starts[here[0]], edge_starts[here[0] + 1]
                    work[0] += last_edge - edge
                else:
                    _cut(net, here, audible, cuts)
                continue
            high = low + 1
            while high < classes and not cuts[high]:
                high += 1
            if work[0] > _WORK_LIMIT:
                return runs[:0], starts[:0], accepting[:0], alone[:0], _LARGE
            here = pool[begins[state] : begins[state + 1]]
            count = _targets(net, here, low, scratch, seeds)
            if count == 0:
                low = high
