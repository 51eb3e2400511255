"""Tokens of prompts, piece by piece: what stood in an earlier prompt isn't encoded again.

A tokenizer cuts a text at its added tokens first, and encodes what lies between two of them by
itself. So a prompt may be cut before an added token: in a conversation all pieces but the last are
those of the turn before, and the longest of them is the one with the tools.
"""

import itertools
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from falsework.prompts.kept_by_text import KeptByText

MAX_KEPT = 4 * 2**20
"""Characters of the pieces that are kept; their tokens take about as many bytes."""


class PieceTokens:
    """Encodes texts that are cut into pieces, and keeps the tokens of each; threads share it."""

    def __init__(self, encode: Callable[[Sequence[str]], Iterable[Sequence[int]]]) -> None:
        """`encode` returns the tokens of each of some pieces."""
        self._encode = encode
        self._kept: KeptByText[array[int]] = KeptByText(MAX_KEPT)

    def encode(self, pieces: Sequence[str]) -> tuple[int, ...]:
        """Return the tokens of the pieces, one after the other."""
        kept = {piece: self._kept.get(piece) for piece in pieces}
        new = [piece for piece, tokens in kept.items() if tokens is None]
        tokens = {piece: one for piece, one in kept.items() if one is not None}
        for piece, encoded in zip(new, self._encode(new) if new else (), strict=True):
            tokens[piece] = array("i", encoded)
            self._kept.put(piece, tokens[piece])
        return tuple(itertools.chain.from_iterable(tokens[piece] for piece in pieces))


def safe_cuts(added: Iterable[Any], wanted: Iterable[str]) -> frozenset[str]:
    """Return those of the added tokens `wanted` before which any text may be cut.

    `added` are all of the vocabulary's, as `tokenizers.AddedToken`. Left out is one that is found
    by what stands before it, takes blanks from there, or may be a part of another one.
    """
    added, names = list(added), frozenset(wanted)
    cuts = {
        token.content
        for token in added
        if token.content in names and not (token.normalized or token.lstrip or token.single_word)
    }
    beginnings = {name[:end] for name in cuts for end in range(1, len(name) + 1)}
    others = [token.content for token in added if token.content not in cuts]
    inside = {
        other[start:end]
        for other in others
        for start in range(1, len(other))
        for end in range(start + 1, len(other) + 1)
        if other[start:end] in (beginnings if end == len(other) else cuts)
    }
    return frozenset(
        name for name in cuts if not any(name[:end] in inside for end in range(1, len(name) + 1))
    )
