"""A matcher that also keeps a reply from beginning with certain texts."""

from bisect import bisect_left
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from falsework.grammars import CallDecision
from falsework.grammars.vocabulary import Vocabulary, clear_bits
from falsework.server.engines.llguidance_matcher import LlguidanceMatcher
from falsework.server.engines.matcher import GrammarMatcher


class NoWayOn(RuntimeError):
    """Whatever the grammar admits here is barred."""


class BarredMatcher:
    """Follows a reply as another matcher does; what is decoded begins with none of `barred`."""

    def __init__(
        self,
        matcher: GrammarMatcher | LlguidanceMatcher,
        barred: Sequence[bytes],
        vocabulary: Vocabulary,
    ) -> None:
        self._matcher = matcher
        self._barred = barred
        self._vocabulary = vocabulary
        self._decoded: list[bytes] = [b""]
        """What is decoded behind each token."""

    @property
    def is_terminated(self) -> bool:
        """Tell whether a token has ended the reply."""
        return self._matcher.is_terminated

    @property
    def forced_tokens(self) -> tuple[int, ...]:
        """Return the tokens that have to come next, up to what is barred."""
        decoded, forced = self._decoded[-1], self._matcher.forced_tokens
        for count, token in enumerate(forced):
            if self._is_barred(decoded, token):
                return forced[:count]
            decoded += self._spelled(token)
        return forced

    @property
    def tentative_token(self) -> tuple[int, ...]:
        """Return the token that comes next unless known text is said in another."""
        return self._matcher.tentative_token

    @property
    def last_was_sampled(self) -> bool:
        """Tell whether the last token was the model's choice, and no known text."""
        return self._matcher.last_was_sampled

    @property
    def decision(self) -> CallDecision | None:
        """Return the decision between a call and none that the next token makes, if it does."""
        return self._matcher.decision

    @property
    def position(self) -> Hashable:
        """Return what tells this part of the reply from others."""
        return self._matcher.position

    def accept_token(self, token: int) -> bool:
        """Advance over a token; False, and nothing changed, when it can't be said here."""
        decoded = self._decoded[-1]
        if self._is_barred(decoded, token) or not self._matcher.accept_token(token):
            return False
        self._decoded.append(decoded + self._spelled(token))
        return True

    def rollback(self, count: int) -> None:
        """Go back over the last `count` tokens."""
        if count:
            self._matcher.rollback(count)
            del self._decoded[-count:]

    def reset(self) -> None:
        """Go back to the beginning."""
        self._matcher.reset()
        del self._decoded[1:]

    def token_bitmask(self) -> NDArray[np.int32]:
        """Return the logits mask for the next token; raise NoWayOn where nothing is left."""
        row = self._matcher.token_bitmask()
        rests = self._rests(self._decoded[-1])
        if not rests:
            return row
        row = row.copy()
        for rest in rests:
            clear_bits(row, self._beginning_with(rest))
        if not row.any():
            raise NoWayOn
        return row

    def _rests(self, decoded: bytes) -> list[bytes]:
        """Return what is missing of the barred texts that one more token may complete."""
        return [
            rest
            for text in self._barred
            if text.startswith(decoded)
            and len(rest := text[len(decoded) :]) <= self._vocabulary.longest
        ]

    def _is_barred(self, decoded: bytes, token: int) -> bool:
        spelled = self._spelled(token)
        return any(spelled.startswith(rest) for rest in self._rests(decoded))

    def _beginning_with(self, text: bytes) -> list[int]:
        ordered = self._vocabulary.ordered
        at, found = bisect_left(ordered, (text, -1)), []
        while at < len(ordered) and ordered[at][0].startswith(text):
            found.append(ordered[at][1])
            at += 1
        return found

    def _spelled(self, token: int) -> bytes:
        known = token < len(self._vocabulary.tokens)
        return (self._vocabulary.tokens[token] if known else None) or b""
