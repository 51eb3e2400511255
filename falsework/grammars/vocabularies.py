"""A tokenizer's vocabulary as bytes, and which of its tokens an automaton admits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

from falsework.grammars.automata import Automaton

Ints = NDArray[np.int32]

KEPT_ROWS = 512


@dataclass(frozen=True, eq=False)
class Trie:
    """The tokens' byte strings as a tree, laid flat in depth-first order.

    Node i takes byte `bytes[i]` behind its parent at `depths[i]` bytes from the root; `skips[i]` is
    the first node behind its subtree; `tokens[i]` the token that ends here or -1. Tokens that spell
    the same bytes are chained through `twins` (token -> next token or -1).
    """

    bytes: NDArray[np.uint8]
    depths: Ints
    skips: Ints
    tokens: Ints
    twins: Ints


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What each token spells: `tokens[id]` are its bytes, None where it can't be part of a reply.

    `ends` are the tokens that end a reply, the usual one first. Special tokens are None, but for
    those that spell a dialect's markers (`<tool_call>`, `</think>`).
    """

    tokens: Sequence[bytes | None]
    ends: Sequence[int]
    trie: Trie = field(init=False)
    alphabet: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        """Lay out the tree, and note which bytes have a token of their own."""
        object.__setattr__(self, "trie", _trie(self.tokens))
        alphabet = np.zeros(256, np.bool_)
        alphabet[[token[0] for token in self.tokens if token and len(token) == 1]] = True
        object.__setattr__(self, "alphabet", alphabet)


class Masks:
    """The logits masks of one automaton, computed when a reply first visits a state.

    The latest `KEPT_ROWS` are kept: 8 MB with a vocabulary of 128k tokens.
    """

    def __init__(self, automaton: Automaton, vocabulary: Vocabulary, width: int) -> None:
        """Masks are `width` words of 32 tokens each, as vLLM's bitmask has them."""
        self.automaton = automaton
        self._vocabulary = vocabulary
        self.width = width
        self._rows: dict[int, Ints] = {}

    def row(self, state: int) -> Ints:
        """Return the mask of a state: bit t % 32 of word t // 32 tells whether t may follow."""
        row = self._rows.get(state)
        if row is None:
            row = self._rows[state] = self._compute(state)
            if len(self._rows) > KEPT_ROWS:
                del self._rows[next(iter(self._rows))]
        return row

    def _compute(self, state: int) -> Ints:
        trie, automaton = self._vocabulary.trie, self.automaton
        row = np.zeros(self.width, np.int32)
        _walk(
            automaton.table, automaton.classes, state,
            trie.bytes, trie.depths, trie.skips, trie.tokens, trie.twins, row,
        )  # fmt: skip
        if automaton.accepting[state]:
            allow(row, self._vocabulary.ends)
        return row

    def __len__(self) -> int:
        """Tell how many masks are kept."""
        return len(self._rows)


def allow(row: Ints, tokens: Iterable[int]) -> None:
    """Set the bits of these tokens."""
    words = row.view(np.uint32)
    for token in tokens:
        words[token >> 5] |= np.uint32(1 << (token & 31))


def allowed(row: Ints) -> list[int]:
    """Return the tokens that a mask admits, in order."""
    bits = np.unpackbits(row.view(np.uint8), bitorder="little")
    return [int(token) for token in np.flatnonzero(bits)]


def _trie(tokens: Sequence[bytes | None]) -> Trie:
    spelled = sorted((token, number) for number, token in enumerate(tokens) if token)
    nodes: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    twins = np.full(len(tokens), -1, np.int32)
    previous, last = b"", -1
    for token, number in spelled:
        if token == previous:
            twins[last] = number
            last = number
            continue
        shared = _shared(previous, token)
        for depth in range(shared, len(token)):
            nodes.append(token[depth])
            depths.append(depth)
            ends.append(-1)
        ends[-1] = number
        previous, last = token, number
    levels = np.array(depths, np.int32)
    return Trie(np.array(nodes, np.uint8), levels, _skips(levels), np.array(ends, np.int32), twins)


def _shared(one: bytes, other: bytes) -> int:
    """Return how many leading bytes two strings share."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _skips(depths):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    count = len(depths)
    skips = np.empty(count, np.int32)
    deepest = 0
    for i in range(count):
        deepest = max(deepest, depths[i])
    # behind[d]: the nearest following node at depth d or less.
    behind = np.full(deepest + 2, count, np.int32)
    for i in range(count - 1, -1, -1):
        skips[i] = behind[depths[i]]
        behind[depths[i] :] = i
    return skips


@numba.njit(cache=True, nogil=True)
def _walk(table, classes, state, bytes_, depths, skips, tokens, twins, row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0913
    states = np.empty(512, np.int32)
    states[0] = state
    i = 0
    while i < len(bytes_):
        depth = depths[i]
        following = table[states[depth], classes[bytes_[i]]]
        if following == 0:
            i = skips[i]
            continue
        if depth + 2 > len(states):
            states = np.concatenate((states, np.empty_like(states)))
        states[depth + 1] = following
        token = tokens[i]
        while token >= 0:
            row[token >> 5] |= np.int32(np.uint32(1) << np.uint32(token & 31))
            token = twins[token]
        i += 1
