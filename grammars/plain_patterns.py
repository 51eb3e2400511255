"""Patterns without look-aheads and word boundaries, by the compiled subset construction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from falsework.grammars import code_points
from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import STATE_LIMIT, CharDFA, TooManyCharacterStates

CLASSES_LIMIT = 255


class PlainJumps(NamedTuple):
    """The jumps of a pattern's net.

    `between` (source, target): those that are always taken; `first`: the nodes where a text may
    begin; `ending`: the nodes from which the pattern is matched where the text ends; `empty`:
    whether it is matched by the empty text.
    """

    between: list[tuple[int, int]]
    first: list[int]
    ending: list[int]
    empty: bool


def plain_jumps(
    jumps: Sequence[Sequence[tuple[str | int, int]]], first: list[int], empty: bool, final: int
) -> PlainJumps:
    """Return what of a net's jumps (kind, target) is taken where; the others as they are given."""
    between: list[tuple[int, int]] = []
    sources: list[list[int]] = [[] for _ in jumps]
    for node, ways in enumerate(jumps):
        for kind, target in ways:
            if kind != "^":
                sources[target].append(node)
            if not kind:
                between.append((node, target))
    ending, stack = {final}, [final]
    while stack:
        further = [node for node in sources[stack.pop()] if node not in ending]
        ending.update(further)
        stack += further
    return PlainJumps(between, first, sorted(ending), empty)


def plain_dfa(
    edges: Sequence[Sequence[tuple[int, int, int]]], jumps: PlainJumps, final: int, budget: Budget
) -> CharDFA | None:
    """Return the automaton of the texts in which a net comes to `final`, whatever follows.

    None: it tells too many characters apart. Raise TooManyCharacterStates.
    """
    # Where schemas are only planned, numba isn't loaded.
    from falsework.grammars.determinize import TooManyStates, determinize  # noqa: PLC0415

    rows = [(node, *edge) for node, ways in enumerate(edges) for edge in ways]
    start, matched, end = len(edges), len(edges) + 1, len(edges) + 2
    rows += [(matched, low, high, matched) for low, high in code_points.ANY]
    taken = [*jumps.between, (final, matched), (matched, end)]
    taken += [(start, node) for node in jumps.first]
    taken += [(node, end) for node in jumps.ending]
    taken += [(start, end)] if jumps.empty else []
    named = np.array(rows, np.int32)
    cuts = np.unique(np.concatenate((named[:, 1], named[:, 2] + 1)))
    if len(cuts) > CLASSES_LIMIT:
        return None
    named[:, 1] = np.searchsorted(cuts, named[:, 1])
    named[:, 2] = np.searchsorted(cuts, named[:, 2] + 1) - 1
    # The construction begins at node 0.
    moved = np.arange(end + 1)
    moved[[0, start]] = start, 0
    named[:, [0, 3]] = moved[named[:, [0, 3]]]
    budget.spend(len(rows) // 8)
    try:
        made = determinize(
            np.zeros(end + 1, np.bool_),
            named,
            moved[np.array(taken)].astype(np.int32),
            end,
            _sayable(cuts),
            STATE_LIMIT,
            matched,
        )
    except TooManyStates:
        raise TooManyCharacterStates from None
    starts, lows, highs, targets = made.edges
    budget.spend(len(targets) // 8)
    ranges = (cuts[lows], cuts[highs.astype(np.int64) + 1] - 1, targets - 1)
    found = np.stack(ranges, axis=1).astype(np.int32)
    # Row 0 is dead.
    return CharDFA.of_arrays(found, starts[1:].copy(), made.accepting[1:].tolist())


def _sayable(cuts: np.ndarray) -> np.ndarray:
    """Tell for each class of characters whether text can hold them: surrogates it can't."""
    return np.array(
        [any(low <= one <= high for low, high in code_points.ANY) for one in cuts[:-1].tolist()]
    )
