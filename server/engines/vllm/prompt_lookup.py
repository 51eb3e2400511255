"""Drafts of likely text: what followed the last time that the same tokens were said.

Values are often copied: a name from the question, an id from an earlier result. Known text is
likely too, where it might be said in other tokens. The model verifies such a draft as any
speculation, so what it says stays its own; a wrong one costs some time, so where one was wrong we
hold back.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

_CONTEXTS = (4, 2)
"""How many tokens have to agree; the longest that does is believed.

Two aren't enough where the last of them is known text: a colon and a quote stand before everything.
"""

_FIRST = 4
_LONGEST_WAIT = 32
_WINDOW = 4096
"""How far back we look, so that a long prompt costs the engine some milliseconds at most."""


class AdaptiveDraftLength:
    """How much is proposed in one place of a reply: more where it was right, else less often."""

    def __init__(self) -> None:
        self._length = _FIRST
        self._misses = 0
        self._wait = 0

    def budget(self) -> int:
        """Return how many tokens may be proposed this time."""
        if self._wait:
            self._wait -= 1
            return 0
        return self._length

    def update(self, right: int, proposed: int) -> None:
        """Propose more after a draft that was right, none for a while after a wrong one."""
        if right >= proposed:
            self._length, self._misses = 2 * self._length, 0
        elif right > 0:
            self._length = min(self._length, max(_FIRST, right))
        else:
            self._misses += 1
            self._length = _FIRST
            self._wait = min(2**self._misses, _LONGEST_WAIT)


class _Offer(NamedTuple):
    """A part of a draft: `length` tokens behind `behind` others."""

    pace: AdaptiveDraftLength
    behind: int
    length: int


class PromptLookupDrafter:
    """Proposes drafts for one reply, part by part; learns in each place what came of the last."""

    def __init__(self) -> None:
        self._paces: dict[Hashable, AdaptiveDraftLength] = {}
        self._offers: list[_Offer] = []
        self._tokens: Sequence[int] = ()
        self._behind: dict[tuple[int, ...], int] = {}
        self._said = 0

    def observe(self, tokens: Sequence[int]) -> None:
        """Take in what was said, prompt and reply so far, before a draft is begun."""
        right = len(tokens) - self._said - 1
        for pace, behind, length in self._offers:
            if right >= behind:
                pace.update(right - behind, length)
        self._offers = []
        for end in range(max(self._said, 1, len(tokens) - _WINDOW), len(tokens)):
            for length in _CONTEXTS:
                if length <= end:
                    self._behind[tuple(tokens[end - length : end])] = end
        self._tokens, self._said = tokens, len(tokens)

    def propose(
        self,
        draft: Sequence[int],
        most: int,
        place: Hashable = None,
        sayable: Callable[[list[int]], list[int]] = list,
        *,
        chosen: bool = True,
    ) -> list[int]:
        """Return up to `most` tokens that followed the last time that this was said.

        They stand behind what was heard and `draft`, whose last token was `chosen` by the model or
        is known text; `sayable` cuts them to what the constraint admits.
        """
        context = [*self._tokens[-_CONTEXTS[0] :], *draft]
        lengths = _CONTEXTS if chosen else _CONTEXTS[:1]
        longest = (self._behind.get(tuple(context[-length:]), 0) for length in lengths)
        at = next((at for at in longest if at), 0)
        pace = self._pace(place)
        room = min(pace.budget(), most)
        return self._offered(pace, draft, sayable(list(self._tokens[at : at + room])) if at else [])

    def propose_open_end(
        self, draft: Sequence[int], place: Hashable, known: Sequence[int]
    ) -> list[int]:
        """Return the tokens in which known text is likely to be said behind `draft`."""
        pace = self._pace((place, "known"))
        return self._offered(pace, draft, list(known) if pace.budget() else [])

    def _pace(self, place: Hashable) -> AdaptiveDraftLength:
        return self._paces.setdefault(place, AdaptiveDraftLength())

    def _offered(
        self, pace: AdaptiveDraftLength, draft: Sequence[int], likely: list[int]
    ) -> list[int]:
        if likely:
            self._offers.append(_Offer(pace, len(draft), len(likely)))
        return likely
