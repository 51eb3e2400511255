"""Prompt lookup: drafts of the tokens that followed the last occurrence of the current n-gram.

Values are often copied: a name from the question, an id from an earlier result. Forced text is
likely too, where it might be tokenised in another way. The model verifies such a draft as any
speculation, so the reply stays its own; a wrong draft costs some time, so the draft length adapts.
"""

from collections.abc import Callable, Container, Hashable, Sequence
from typing import NamedTuple

_CONTEXTS = (4, 2)
"""Lengths of the n-grams; the longest that occurs is used.

Two tokens aren't enough where the last is forced text: a colon and a quote precede every value.
"""

_FIRST = 4
_LONGEST_WAIT = 32
_WINDOW = 4096
"""Tokens that are indexed, so that a long prompt costs the engine some milliseconds at most."""


class AdaptiveDraftLength:
    """The draft length at one position of the DFA: doubled after hits, paused after misses."""

    def __init__(self) -> None:
        self._length = _FIRST
        self._misses = 0
        self._wait = 0

    def budget(self) -> int:
        """Return how many tokens may be proposed in this step."""
        if self._wait:
            self._wait -= 1
            return 0
        return self._length

    def update(self, right: int, proposed: int) -> None:
        """Adapt to a draft of which `right` of `proposed` tokens were accepted."""
        if right >= proposed:
            self._length, self._misses = 2 * self._length, 0
        elif right > 0:
            self._length = min(self._length, max(_FIRST, right))
        else:
            self._misses += 1
            self._length = _FIRST
            self._wait = min(2**self._misses, _LONGEST_WAIT)


class _Proposal(NamedTuple):
    """A part of a draft: `length` tokens behind `behind` others."""

    pace: AdaptiveDraftLength
    behind: int
    length: int


class PromptLookupDrafter:
    """Proposes drafts for one reply, part by part, with a draft length for each position."""

    def __init__(self) -> None:
        self._paces: dict[Hashable, AdaptiveDraftLength] = {}
        self._proposals: list[_Proposal] = []
        self._tokens: Sequence[int] = ()
        self._after_ngram: dict[tuple[int, ...], int] = {}
        self._observed = 0

    def observe(self, tokens: Sequence[int]) -> None:
        """Index the tokens of prompt and reply so far, before a draft is begun."""
        right = len(tokens) - self._observed - 1
        for pace, behind, length in self._proposals:
            if right >= behind:
                pace.update(right - behind, length)
        self._proposals = []
        for end in range(max(self._observed, 1, len(tokens) - _WINDOW), len(tokens)):
            for length in _CONTEXTS:
                if length <= end:
                    self._after_ngram[tuple(tokens[end - length : end])] = end
        self._tokens, self._observed = tokens, len(tokens)

    def propose(
        self,
        draft: Sequence[int],
        limit: int,
        position: Hashable = None,
        allowed: Callable[[list[int]], list[int]] = list,
        *,
        chosen: bool = True,
    ) -> list[int]:
        """Return up to `limit` tokens that followed the last occurrence of the current n-gram.

        They continue the observed tokens and `draft`, whose last token was `chosen` by the model or
        is forced text; `allowed` cuts them to what the constraint allows.
        """
        context = [*self._tokens[-_CONTEXTS[0] :], *draft]
        lengths = _CONTEXTS if chosen else _CONTEXTS[:1]
        longest = (self._after_ngram.get(tuple(context[-length:]), 0) for length in lengths)
        at = next((at for at in longest if at), 0)
        pace = self._pace(position)
        room = min(pace.budget(), limit)
        return self._proposed(
            pace, draft, allowed(list(self._tokens[at : at + room])) if at else []
        )

    def propose_open_end(
        self, draft: Sequence[int], position: Hashable, known: Sequence[int]
    ) -> list[int]:
        """Return the usual tokens of forced text (`known`) behind `draft`."""
        pace = self._pace((position, "known"))
        return self._proposed(pace, draft, list(known) if pace.budget() else [])

    def _pace(self, position: Hashable) -> AdaptiveDraftLength:
        return self._paces.setdefault(position, AdaptiveDraftLength())

    def _proposed(
        self, pace: AdaptiveDraftLength, draft: Sequence[int], likely: list[int]
    ) -> list[int]:
        if likely:
            self._proposals.append(_Proposal(pace, len(draft), len(likely)))
        return likely


class DraftersByRequest:
    """The drafters of requests, by their ids."""

    def __init__(self) -> None:
        self._drafters: dict[str, PromptLookupDrafter] = {}

    def of(self, request_id: str, running: Container[str]) -> PromptLookupDrafter:
        """Return a request's drafter; those of requests that aren't `running` are forgotten."""
        drafter = self._drafters.get(request_id)
        if drafter is None:
            self._drafters = {one: kept for one, kept in self._drafters.items() if one in running}
            drafter = self._drafters[request_id] = PromptLookupDrafter()
        return drafter
