"""The product of two automata over characters, compiled by numba.

Edges of an automaton are rows (lowest, highest, target), each state's in order; those of state s
are edges[starts[s]:starts[s + 1]].
"""

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@numba.njit(cache=True, nogil=True)
def _slot(slots, pairs, one, other):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the slot that holds a pair, or the free one where it belongs."""
    digest = np.uint64(one) * np.uint64(11400714819323198485) + np.uint64(other)
    digest = (digest ^ (digest >> np.uint64(31))) * np.uint64(7046029254386353131)
    slot = np.int64((digest >> np.uint64(20)) & np.uint64(len(slots) - 1))
    while slots[slot] >= 0:
        if pairs[slots[slot], 0] == one and pairs[slots[slot], 1] == other:
            break
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@numba.njit(cache=True, nogil=True)
def product(one, other, limit, work):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return (pairs, edges, starts) of the pairs of states that can be reached.

    `one`, `other`: (edges, starts). No pairs: there are more than `limit` of them, or it takes more
    than `work` steps.
    """
    mine, my_starts = one
    theirs, their_starts = other
    most = min(limit, len(my_starts) * len(their_starts))
    size = 4
    while size < 4 * most:
        size *= 2
    slots = np.full(size, -1, np.int32)
    pairs = np.zeros((most + 1, 2), np.int32)
    starts = np.zeros(most + 2, np.int32)
    edges = np.empty((1024, 3), np.int32)
    slots[_slot(slots, pairs, 0, 0)] = 0
    known, count, state = 1, 0, 0
    while state < known:
        starts[state] = count
        i, k = my_starts[pairs[state, 0]], their_starts[pairs[state, 1]]
        last_i, last_k = my_starts[pairs[state, 0] + 1], their_starts[pairs[state, 1] + 1]
        while i < last_i and k < last_k:
            work -= 1
            low, high = max(mine[i, 0], theirs[k, 0]), min(mine[i, 1], theirs[k, 1])
            if low <= high:
                slot = _slot(slots, pairs, mine[i, 2], theirs[k, 2])
                target = slots[slot]
                if target < 0:
                    if known > most or work < 0:
                        return pairs[:0], edges[:0], starts[:0]
                    target = slots[slot] = known
                    pairs[known, 0], pairs[known, 1] = mine[i, 2], theirs[k, 2]
                    known += 1
                joins = count > starts[state] and edges[count - 1, 2] == target
                if joins and edges[count - 1, 1] == low - 1:
                    edges[count - 1, 1] = high
                else:
                    if count == len(edges):
                        edges = np.concatenate((edges, np.empty_like(edges)))
                    edges[count, 0], edges[count, 1], edges[count, 2] = low, high, target
                    count += 1
            if mine[i, 1] <= theirs[k, 1]:
                i += 1
            else:
                k += 1
        state += 1
    starts[known] = count
    return pairs[:known].copy(), edges[:count].copy(), starts[: known + 1].copy()


@numba.njit(cache=True, nogil=True)
def _ending(edges, starts, accepting):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Tell for each state whether a text ends behind it."""
    states = len(accepting)
    counts = np.zeros(states + 1, np.int32)
    for e in range(len(edges)):
        counts[edges[e, 2] + 1] += 1
    for state in range(states):
        counts[state + 1] += counts[state]
    following = counts.copy()
    sources = np.empty(len(edges), np.int32)
    for state in range(states):
        for e in range(starts[state], starts[state + 1]):
            sources[following[edges[e, 2]]] = state
            following[edges[e, 2]] += 1
    alive = accepting.copy()
    stack = np.empty(states, np.int64)
    depth = 0
    for state in accepting.nonzero()[0]:
        stack[depth] = state
        depth += 1
    while depth:
        depth -= 1
        state = stack[depth]
        for i in range(counts[state], counts[state + 1]):
            if not alive[sources[i]]:
                alive[sources[i]] = True
                stack[depth] = sources[i]
                depth += 1
    return alive


@numba.njit(cache=True, nogil=True)
def trim(edges, starts, accepting):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Leave out the states that no text ends behind; return (edges, starts, accepting).

    The first state stays, without edges where nothing ends behind it.
    """
    states = len(accepting)
    alive = _ending(edges, starts, accepting)
    alive[0] = True
    numbers = np.cumsum(alive) - 1
    kept, count, known = np.empty_like(edges), 0, 0
    begins = np.zeros(numbers[-1] + 2, np.int32)
    for state in range(states):
        if alive[state]:
            for e in range(starts[state], starts[state + 1]):
                if alive[edges[e, 2]]:
                    kept[count, 0], kept[count, 1] = edges[e, 0], edges[e, 1]
                    kept[count, 2] = numbers[edges[e, 2]]
                    count += 1
            known += 1
            begins[known] = count
    return kept[:count].copy(), begins, accepting[alive]
