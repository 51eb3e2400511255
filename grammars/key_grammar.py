"""Keys that are none of some names, as an automaton over bytes: a tree of names inside free text.

Every character has one spelling: as it is where that may be, otherwise as `json.dumps` escapes it.
"""

import functools
import json

import numpy as np
from numpy.typing import NDArray

from falsework.grammars.char_dfa import ANY_TEXT
from falsework.grammars.expressions import Fragment
from falsework.grammars.spelled_text import SpelledText

_NOWHERE = -1
_QUOTE = 0x22
MOST_KEPT = 256


@functools.lru_cache(maxsize=MOST_KEPT)
def keys_without(names: tuple[str, ...]) -> Fragment:
    """Return what says a key, quotes and all, that is none of `names`."""
    free = _free_text()
    # Nodes: the start, the end, free text, and the tree of the names behind the quote.
    children: list[dict[int, int]] = [{}]
    places = [0]  # where in free text each node of the tree stands
    whole = []
    for name in names:
        node: int = 0
        for byte in json.dumps(name, ensure_ascii=False).encode("utf-8", "surrogatepass")[1:-1]:
            behind = int(free[places[node], byte])
            if behind == _NOWHERE:
                break  # it has a lone surrogate, which nothing can say
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
                places.append(behind)
            node = children[node][byte]
        else:
            whole.append(node)
    tree = 2 + len(free)
    moved = np.where(free == _NOWHERE, _NOWHERE, free + 2)
    table = np.full((tree + len(children), 256), _NOWHERE, np.int32)
    table[0, _QUOTE] = tree
    table[2:tree], table[tree:] = moved, moved[places]
    table[2, _QUOTE] = 1
    table[tree:, _QUOTE][np.array(places) == 0] = 1
    for node, below in enumerate(children):
        for byte, child in below.items():
            table[tree + node, byte] = tree + child
    table[[tree + node for node in whole], _QUOTE] = _NOWHERE
    return Fragment.of_table(table, [1])


@functools.cache
def _free_text() -> NDArray[np.int32]:
    """Return the automaton of any text between quotes: the next state for each byte (n, 256)."""
    text = SpelledText(ANY_TEXT)
    table = np.full((text.nodes, 256), _NOWHERE, np.int32)
    for source, low, high, target in text.edges:
        table[source, low : high + 1] = target
    return table
