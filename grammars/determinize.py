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

Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]

_POOL_LIMIT = 8_000_000
"""How many members all sets together may have: 32 MB."""
_WORK_LIMIT = 150_000_000
"""How many members are looked at, all classes together, before it is given up: about a second."""


_DONE, _LARGE, _MET = range(3)


class TooManyStates(ValueError):
    """The deterministic automaton is larger than the limit."""


class AmbiguousCounters(ValueError):
    """Whether a text stands inside a counted loop isn't known from the text alone."""


class DFATables(NamedTuple):
    """A deterministic automaton; `nodes` (states): the counted node that a state is, or -1."""

    table: Ints
    accepting: Flags
    nodes: Ints


def determinize(  # noqa: PLR0913 - a net is six things
    counted: Flags, edges: Ints, jumps: Ints, final: int, classes: int, limit: int
) -> DFATables:
    """Return the deterministic automaton; raise TooManyStates or CountersMeet.

    `counted` (nodes): whether a node is inside a counted loop; `edges` (n, 4): source, lowest
    class, highest class, target; `jumps` (n, 2): source, target.
    """
    nodes = len(counted)
    edges = edges[np.argsort(edges[:, 0], kind="stable")]
    jumps = jumps[np.argsort(jumps[:, 0], kind="stable")]
    numbers = np.arange(nodes + 1)
    net = (
        np.ascontiguousarray(edges[:, 1:]),
        np.searchsorted(edges[:, 0], numbers).astype(np.int32),
        np.ascontiguousarray(jumps[:, 1]),
        np.searchsorted(jumps[:, 0], numbers).astype(np.int32),
        final,
    )
    *made, outcome = _construct(net, counted, classes, limit)
    if outcome == _LARGE:
        raise TooManyStates
    if outcome == _MET:
        raise AmbiguousCounters
    return DFATables(*made)


@numba.njit(cache=True, nogil=True)
def _close(net, seeds, count, marks, stack):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Follow jumps from the seeds; return the nodes that matter (with edges, or final), sorted."""
    _, edge_starts, jumps, jump_starts, final = net
    marks[0] += 1
    mark = marks[0]
    depth = 0
    for i in range(count):
        if marks[seeds[i] + 1] != mark:
            marks[seeds[i] + 1] = mark
            stack[depth] = seeds[i]
            depth += 1
    found = np.empty(16, np.int32)
    size = 0
    while depth:
        depth -= 1
        node = stack[depth]
        if edge_starts[node + 1] > edge_starts[node] or node == final:
            if size == len(found):
                found = np.concatenate((found, np.empty(size, np.int32)))
            found[size] = node
            size += 1
        for i in range(jump_starts[node], jump_starts[node + 1]):
            target = jumps[i]
            if marks[target + 1] != mark:
                marks[target + 1] = mark
                stack[depth] = target
                depth += 1
    return np.sort(found[:size])


@numba.njit(cache=True, nogil=True)
def _targets(net, members, low, marks, seeds):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Collect into `seeds` where the members go with class `low`; return how many."""
    edges, edge_starts = net[0], net[1]
    marks[0] += 1
    count = 0
    for node in members:
        for e in range(edge_starts[node], edge_starts[node + 1]):
            target = edges[e, 2]
            if edges[e, 0] <= low <= edges[e, 1] and marks[target + 1] != marks[0]:
                marks[target + 1] = marks[0]
                seeds[count] = target
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _cut(net, members, cuts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Mark in `cuts` the classes where a new run of equal targets may begin."""
    edges, edge_starts = net[0], net[1]
    cuts[:] = False
    for node in members:
        for e in range(edge_starts[node], edge_starts[node + 1]):
            cuts[edges[e, 0]] = True
            cuts[edges[e, 1] + 1] = True


@numba.njit(cache=True, nogil=True)
def _slot(members, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return where the search for a set begins in a table of `size` slots (FNV-1a)."""
    digest = np.uint64(14695981039346656037)
    for member in members:
        digest = (digest ^ np.uint64(member)) * np.uint64(1099511628211)
    digest ^= digest >> np.uint64(29)
    return np.int64(digest & np.uint64(size - 1))


@numba.njit(cache=True, nogil=True)
def _find(slots, pool, begins, members):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the slot that holds this set, or the free one where it belongs."""
    slot = _slot(members, len(slots))
    while slots[slot] != 0:
        known = pool[begins[slots[slot]] : begins[slots[slot] + 1]]
        if len(known) == len(members) and np.array_equal(known, members):
            break
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@numba.njit(cache=True, nogil=True)
def _rehash(slots, pool, begins, states):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return a table of twice the size that holds the states 1 to `states`."""
    larger = np.zeros(2 * len(slots), np.int32)
    for state in range(1, states):
        larger[_find(larger, pool, begins, pool[begins[state] : begins[state + 1]])] = state
    return larger


@numba.njit(cache=True, nogil=True)
def _construct(net, counted, classes, limit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, C901, PLR0912, PLR0915
    final, nodes = net[4], len(counted)
    table = np.zeros((256, classes), np.int32)
    accepting = np.zeros(256, np.bool_)
    alone = np.full(256, -1, np.int32)
    pool = np.empty(4096, np.int32)
    begins = np.zeros(258, np.int64)
    slots = np.zeros(1024, np.int32)
    marks = np.zeros(nodes + 1, np.int64)
    stack = np.empty(nodes + 1, np.int32)
    seeds = np.zeros(nodes + 1, np.int32)
    cuts = np.zeros(classes + 1, np.bool_)
    states, state, count, low, high = 1, 0, 1, 0, 0
    work = 0
    while True:
        # Behind one run of classes of `state` (first of all: behind nothing) lies this set.
        members = _close(net, seeds, count, marks, stack)
        slot = _find(slots, pool, begins, members)
        if slots[slot] == 0:
            if states > limit or begins[states] + len(members) > _POOL_LIMIT or work > _WORK_LIMIT:
                return table[:0], accepting[:0], alone[:0], _LARGE
            if len(members) > 1 and counted[members].any():
                return table[:0], accepting[:0], alone[:0], _MET
            if states == len(table):
                table = np.concatenate((table, np.zeros_like(table)))
                accepting = np.concatenate((accepting, np.zeros_like(accepting)))
                alone = np.concatenate((alone, np.full_like(alone, -1)))
                begins = np.concatenate((begins, np.zeros_like(begins)))
            while begins[states] + len(members) > len(pool):
                pool = np.concatenate((pool, np.empty_like(pool)))
            pool[begins[states] : begins[states] + len(members)] = members
            begins[states + 1] = begins[states] + len(members)
            accepting[states] = np.any(members == final)
            if len(members) == 1 and counted[members[0]]:
                alone[states] = members[0]
            slots[slot] = states
            states += 1
            if 2 * states > len(slots):
                slots = _rehash(slots, pool, begins, states)
                slot = _find(slots, pool, begins, members)
        if state:
            table[state, low:high] = slots[slot]
        # On to the next run that leads anywhere, of this state or of the next.
        count, low = 0, high
        while count == 0:
            while low < classes and not cuts[low]:
                low += 1
            if state == 0 or low == classes:
                state += 1
                if state == states:
                    return table[:states].copy(), accepting[:states].copy(), alone[:states], _DONE
                _cut(net, pool[begins[state] : begins[state + 1]], cuts)
                low = 0
                continue
            high = low + 1
            while high < classes and not cuts[high]:
                high += 1
            here = pool[begins[state] : begins[state + 1]]
            work += len(here) + 8
            count = _targets(net, here, low, marks, seeds)
            if count == 0:
                low = high


@numba.njit(cache=True, nogil=True)
def live_states(table, accepting):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Tell for each state whether an accepting one can still be reached."""
    states, classes = table.shape
    alive = accepting.copy()
    changed = True
    while changed:
        changed = False
        for state in range(states - 1, 0, -1):
            for c in range(classes):
                if not alive[state] and alive[table[state, c]]:
                    alive[state] = changed = True
    return alive
