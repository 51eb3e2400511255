"""The edges of a net in order, and which of its nodes matter."""

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]


def in_order(edges: Ints, nodes: int) -> tuple[Ints, Ints, Flags]:
    """Sort edges by source and class; return where each source's begin, and whether none meet."""
    order, starts = grouped(edges[:, 0], nodes)
    edges = edges[order]
    same = edges[1:, 0] == edges[:-1, 0]
    if (same & (edges[1:, 1] < edges[:-1, 1])).any():
        edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    sure = np.ones(nodes, np.bool_)
    sure[edges[1:, 0][same & (edges[1:, 1] <= edges[:-1, 2])]] = False
    return edges, starts, sure


def alive_nodes(nodes: int, edges: Ints, jumps: Ints, final: int) -> Flags:
    """Tell for each node whether the final one can be reached."""
    targets = np.concatenate((edges[:, 3], jumps[:, 1]))
    sources = np.concatenate((edges[:, 0], jumps[:, 0]))
    order, starts = grouped(targets, nodes)
    reached: Flags = _reached(starts, sources[order], final)
    return reached


@numba.njit(cache=True, nogil=True)
def grouped(keys, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return an order that brings equal keys together, and where each of `count` keys begins."""
    starts = np.zeros(count + 1, np.int32)
    for key in keys:
        starts[key + 1] += 1
    for key in range(count):
        starts[key + 1] += starts[key]
    following = starts.copy()
    order = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        order[following[keys[i]]] = i
        following[keys[i]] += 1
    return order, starts


@numba.njit(cache=True, nogil=True)
def _reached(begins, targets, start):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Tell for each node whether it can be reached from `start`."""
    reached = np.zeros(len(begins) - 1, np.bool_)
    stack = np.empty(len(reached), np.int64)
    stack[0], depth = start, 1
    reached[start] = True
    while depth:
        depth -= 1
        node = stack[depth]
        for i in range(begins[node], begins[node + 1]):
            target = targets[i]
            if not reached[target]:
                reached[target] = True
                stack[depth] = target
                depth += 1
    return reached


@numba.njit(cache=True, nogil=True)
def add_run(runs, count, first, run, audible):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add the audible classes of `run` (low, high, target) to a state's runs from `first` on."""
    low, high, target = run
    for c in range(low, high):
        if not audible[c]:
            continue
        if count > first and runs[count - 1, 1] == c - 1 and runs[count - 1, 2] == target:
            runs[count - 1, 1] = c
            continue
        if count == len(runs):
            runs = np.concatenate((runs, np.empty_like(runs)))
        runs[count, 0], runs[count, 1], runs[count, 2] = c, c, target
        count += 1
    return runs, count
