"""Logits masks: which tokens of a vocabulary an automaton admits in a state."""

import hashlib
import threading
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from falsework.grammars.dfa import DEAD, DFA, transition
from falsework.grammars.vocabulary import LONGEST_PLAIN, Ints, Vocabulary, set_bits

MAX_CACHED_MASKS = 512


class KeptMask:
    """A mask as the difference from that of plain tokens of up to `room` characters.

    `words`: where it differs (uint16 or int32), `values`: what stands there instead (int32).
    """

    __slots__ = ("__weakref__", "room", "values", "words")

    def __init__(self, room: int, words: NDArray[Any], values: Ints) -> None:
        self.room = room
        self.words = words
        self.values = values

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return self.words.nbytes + self.values.nbytes


class TokenMasks:
    """The logits masks of one automaton, computed when a reply first visits a state.

    The latest `MAX_CACHED_MASKS` are kept.
    """

    def __init__(self, automaton: DFA, vocabulary: Vocabulary, width: int) -> None:
        """Masks are `width` words of 32 tokens each, as vLLM's bitmask has them."""
        self.automaton = automaton
        self._vocabulary = vocabulary
        self.width = width
        self._masks: dict[int, KeptMask] = {}
        self._lock = threading.Lock()
        self._characters = _told_apart(vocabulary.plain.characters, automaton.classes)

    def mask_for(self, state: int) -> Ints:
        """Return the mask of a state: bit t % 32 of word t // 32 tells whether t may follow."""
        state = self.automaton.representative(state, self._vocabulary.longest)
        kept = self._masks.get(state)
        if kept is None:
            kept = self._compute(state)
            with self._lock:  # vLLM fills large batches from several threads
                self._masks[state] = kept
                if len(self._masks) > MAX_CACHED_MASKS:
                    del self._masks[next(iter(self._masks))]
        row = self._plain(kept.room)
        row[kept.words] = kept.values
        return row

    def _plain(self, room: int) -> Ints:
        """Return the mask of the plain tokens of up to `room` characters."""
        plain: Ints = self._vocabulary.plain.rows[room]
        if len(plain) == self.width:
            return plain.copy()
        row = np.zeros(self.width, np.int32)
        row[: len(plain)] = plain
        return row

    def _compute(self, state: int) -> KeptMask:
        trie, automaton = self._vocabulary.trie, self.automaton
        at = (automaton.edges, automaton.loops, *divmod(state, automaton.rows)[::-1])
        room = int(_room(*at, self._characters))
        plain = self._plain(room)
        row = plain.copy()
        leaves = (trie.bytes, trie.depths, trie.skips, trie.tokens, trie.twins, trie.reaches)
        _walk(at, automaton.classes, room, leaves, row)
        if automaton.is_accepting(state):
            set_bits(row, self._vocabulary.ends)
        words = (row != plain).nonzero()[0]
        values = row[words]
        words = words.astype(np.uint16 if self.width < 1 << 16 else np.int32)
        parts = (room.to_bytes(2), self.width.to_bytes(4), words.tobytes(), values.tobytes())
        digest = hashlib.blake2b(b"".join(parts), digest_size=16).digest()
        made: KeptMask = self._vocabulary.shared_masks.setdefault(
            digest, KeptMask(room, words, values)
        )
        return made

    def __len__(self) -> int:
        """Tell how many masks are kept."""
        return len(self._masks)


def tokens_in_mask(row: Ints) -> list[int]:
    """Return the tokens that a mask admits, in order."""
    bits = np.unpackbits(row.view(np.uint8), bitorder="little")
    return [int(token) for token in np.flatnonzero(bits)]


def _told_apart(characters: NDArray[np.int16], classes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return the characters in terms of an automaton's classes, those it can't tell apart once."""
    sorted_out = np.where(characters < 0, np.int16(-1), classes[characters].astype(np.int16))
    keys = np.ascontiguousarray(sorted_out).view(np.int64).ravel()
    return np.unique(keys).view(np.int16).reshape(-1, 4)


@numba.njit(cache=True, nogil=True)
def _room(edges, loops, row, rounds, characters):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return how many plain characters, whichever they are, may follow a state (a lower bound)."""
    room = 0
    while room < LONGEST_PLAIN:
        target, target_rounds = -1, -1
        for i in range(len(characters)):
            following, count = row, rounds
            for j in range(4):
                if characters[i, j] >= 0:
                    following, count = transition(edges, loops, following, count, characters[i, j])
            if following == DEAD:
                return room
            if target != -1 and (following != target or count != target_rounds):
                return room
            target, target_rounds = following, count
        if target == -1 or (target == row and target_rounds == rounds):
            return LONGEST_PLAIN
        row, rounds = target, target_rounds
        room += 1
    return room


@numba.njit(cache=True, nogil=True)
def _walk(at, classes, room, trie, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Allow what the automaton can say, but for plain tokens of up to `room` characters."""
    edges, loops, row, rounds = at
    bytes_, depths, skips, tokens, twins, reaches = trie
    places = np.empty((512, 2), np.int64)
    places[0, 0], places[0, 1] = row, rounds
    i = 0
    while i < len(bytes_):
        if reaches[i] <= room:
            i = skips[i]
            continue
        depth = depths[i]
        following, count = transition(
            edges, loops, places[depth, 0], places[depth, 1], classes[bytes_[i]]
        )
        if following == DEAD:
            i = skips[i]
            continue
        if depth + 2 > len(places):
            places = np.concatenate((places, np.empty_like(places)))
        places[depth + 1, 0], places[depth + 1, 1] = following, count
        token = tokens[i]
        while token >= 0:
            mask[token >> 5] |= np.int32(np.uint32(1) << np.uint32(token & 31))
            token = twins[token]
        i += 1
