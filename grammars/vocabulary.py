"""A tokenizer's vocabulary as bytes, laid out for walking an automaton over it."""

import functools
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

STRUCTURAL_CHARACTERS = frozenset('"\\<[{|`' + "".join(map(chr, (*range(32), 127))))
"""Characters that strings have to escape, or that dialects' markers begin with."""

LONGEST_PLAIN = 64
_NEVER = 2**30


@dataclass(frozen=True, eq=False)
class Trie:
    """The tokens' byte strings as a tree, laid flat in depth-first order.

    Node i takes byte `bytes[i]` behind its parent at `depths[i]` bytes from the root; `skips[i]` is
    the first node behind its subtree; `tokens[i]` the token that ends here or -1. Tokens that spell
    the same bytes are chained through `twins` (token -> next token or -1). `reaches[i]` is how many
    characters the longest token of the subtree has, where all its tokens are plain text.
    """

    bytes: NDArray[np.uint8]
    depths: Ints
    skips: Ints
    tokens: Ints
    twins: Ints
    reaches: Ints


@dataclass(frozen=True, eq=False)
class PlainTokens:
    """The tokens that are whole characters, none of them special: nearly all of a vocabulary.

    `rows[n]` (LONGEST_PLAIN + 1, words; int32) is the mask of those of at most n characters;
    `characters` (n, 4; int16) the bytes of every character in them, -1 behind the last.
    """

    rows: Ints
    characters: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What each token spells: `tokens[id]` are its bytes, None where it can't be part of a reply.

    `ends` are the tokens that end a reply, the usual one first. Special tokens are None, but for
    those that spell a dialect's markers (`<tool_call>`, `</think>`).
    """

    tokens: Sequence[bytes | None]
    ends: Sequence[int]
    trie: Trie = field(init=False)
    plain: PlainTokens = field(init=False)
    alphabet: NDArray[np.bool_] = field(init=False)
    longest: int = field(init=False)
    shared_masks: weakref.WeakValueDictionary[bytes, Any] = field(init=False)
    """The masks that automata over this vocabulary keep, by their digest: many have the same."""

    def __post_init__(self) -> None:
        """Lay out the tree; note which bytes have a token of their own, and the longest token."""
        lengths = [_characters(token) for token in self.tokens]
        object.__setattr__(self, "trie", _trie(self.tokens, lengths))
        object.__setattr__(self, "plain", _plain_text(self.tokens, lengths))
        alphabet = np.zeros(256, np.bool_)
        alphabet[[token[0] for token in self.tokens if token and len(token) == 1]] = True
        object.__setattr__(self, "alphabet", alphabet)
        object.__setattr__(self, "shared_masks", weakref.WeakValueDictionary())
        object.__setattr__(self, "longest", max(len(token or b"") for token in self.tokens))

    @functools.cached_property
    def ordered(self) -> Sequence[tuple[bytes, int]]:
        """Return (bytes, number) of the tokens that spell something, by their bytes."""
        return sorted((token, number) for number, token in enumerate(self.tokens) if token)

    def text_of(self, tokens: Iterable[int]) -> bytes:
        """Return what tokens spell; raise ValueError for one that spells nothing."""
        spelled = [self.tokens[one] if one < len(self.tokens) else None for one in tokens]
        if None in spelled:
            msg = "a token spells nothing"
            raise ValueError(msg)
        return b"".join(filter(None, spelled))


def mask_width(tokens: int) -> int:
    """Return how many words of 32 bits a mask over so many tokens has."""
    return (tokens + 31) // 32


def set_bits(row: Ints, tokens: Iterable[int]) -> None:
    """Set the bits of these tokens."""
    words = row.view(np.uint32)
    for token in tokens:
        words[token >> 5] |= np.uint32(1 << (token & 31))


def clear_bits(row: Ints, tokens: Iterable[int]) -> None:
    """Clear the bits of these tokens."""
    words = row.view(np.uint32)
    for token in tokens:
        words[token >> 5] &= ~np.uint32(1 << (token & 31))


def _characters(token: bytes | None) -> int:
    """Return how many characters a token has when it is plain text, otherwise _NEVER."""
    try:
        text = token.decode() if token else ""
    except UnicodeDecodeError:
        return _NEVER
    plain = 0 < len(text) <= LONGEST_PLAIN and STRUCTURAL_CHARACTERS.isdisjoint(text)
    return len(text) if plain else _NEVER


def _plain_text(tokens: Sequence[bytes | None], lengths: Sequence[int]) -> PlainTokens:
    rows = np.zeros((LONGEST_PLAIN + 1, mask_width(len(tokens))), np.int32)
    characters: set[str] = set()
    for number, (token, length) in enumerate(zip(tokens, lengths, strict=True)):
        if token and length <= LONGEST_PLAIN:
            set_bits(rows[length], (number,))
            characters.update(token.decode())
    spelled = np.full((len(characters), 4), -1, np.int16)
    for i, character in enumerate(sorted(characters)):
        encoded = character.encode()
        spelled[i, : len(encoded)] = list(encoded)
    return PlainTokens(np.bitwise_or.accumulate(rows), spelled)


def _trie(tokens: Sequence[bytes | None], lengths: Sequence[int]) -> Trie:
    spelled = sorted((token, number) for number, token in enumerate(tokens) if token)
    nodes: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    reaches: list[int] = []
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
            reaches.append(0)
        ends[-1] = number
        reaches[-1] = lengths[number]
        previous, last = token, number
    levels = np.array(depths, np.int32)
    skips = _skips(levels)
    return Trie(
        np.array(nodes, np.uint8),
        levels,
        skips,
        np.array(ends, np.int32),
        twins,
        _furthest(skips, np.array(reaches, np.int32)),
    )


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
def _furthest(skips, reaches):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return each node's largest value in its subtree."""
    largest = reaches.copy()
    for i in range(len(skips) - 1, -1, -1):
        child = i + 1
        while child < skips[i]:
            largest[i] = max(largest[i], largest[child])
            child = skips[child]
    return largest
