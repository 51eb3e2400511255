"""Drafts of likely text: what followed the last time that the same tokens were said.

Values are often copied: a name from the question, an id from an earlier result. The model verifies
such a draft as any speculation, so what it says stays its own; a wrong one costs some time, so
after misses we hold back.
"""

from collections.abc import Callable, Sequence

_CONTEXTS = (4, 2)
"""How many tokens have to agree; the longest that does is believed."""

_FIRST = 4
_LONGEST_WAIT = 32
_WINDOW = 4096
"""How far back we look, so that a long prompt costs the engine some milliseconds at most."""


class Copies:
    """Proposes drafts for one reply; learns from what became of the last one."""

    def __init__(self, most: int) -> None:
        """Propose at most `most` tokens at once."""
        self._most = most
        self._length = min(_FIRST, most)
        self._behind: dict[tuple[int, ...], int] = {}
        self._known = 0
        self._proposed = 0
        self._said = 0
        self._misses = 0
        self._wait = 0

    def propose(
        self, tokens: Sequence[int], most: int, sayable: Callable[[list[int]], list[int]]
    ) -> list[int]:
        """Return up to `most` tokens that may follow `tokens`, prompt and reply so far.

        `sayable` cuts a draft to what the constraint admits.
        """
        self._learn(len(tokens))
        self._proposed = 0
        if self._wait:
            self._wait -= 1
            return []
        at = self._last_time(tokens)
        draft = sayable(list(tokens[at : at + min(self._length, most)])) if at else []
        self._proposed, self._said = len(draft), len(tokens)
        return draft

    def _learn(self, said: int) -> None:
        """Propose more after a draft that was right, none for a while after a wrong one."""
        if not self._proposed:
            return
        right = said - self._said - 1
        if right >= self._proposed:
            self._length, self._misses = min(2 * self._length, self._most), 0
        elif right > 0:
            self._length = min(self._length, max(_FIRST, right))
        else:
            self._misses += 1
            self._length = min(_FIRST, self._most)
            self._wait = min(2**self._misses, _LONGEST_WAIT)

    def _last_time(self, tokens: Sequence[int]) -> int:
        """Return where it went on, 0 where the last tokens are new."""
        for end in range(max(self._known, 1, len(tokens) - _WINDOW), len(tokens)):
            for length in _CONTEXTS:
                if length <= end:
                    self._behind[tuple(tokens[end - length : end])] = end
        self._known = len(tokens)
        longest = (self._behind.get(tuple(tokens[-length:]), 0) for length in _CONTEXTS)
        return next((at for at in longest if at), 0)
