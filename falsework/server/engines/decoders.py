"""One reply while it is decoded: where it stands in its automaton, and what may come next."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from falsework.grammars.automata import DEAD, START
from falsework.grammars.vocabularies import Masks, Vocabulary, allow

_ENDED = -1


@dataclass(frozen=True)
class ThinkBudget:
    """After `tokens` tokens the think block ends.

    As soon as the automaton is in state `resting` (between two characters of the block), the
    tokens `close` are forced.
    """

    tokens: int
    resting: int
    close: tuple[int, ...]


class Decoder:
    """Follows one reply token by token, and can go back."""

    def __init__(
        self, masks: Masks, vocabulary: Vocabulary, budget: ThinkBudget | None = None
    ) -> None:
        self._masks = masks
        self._vocabulary = vocabulary
        self._budget = budget
        self._closing_at: int | None = None
        self._states = [START]

    @property
    def state(self) -> int:
        """Return the state of the automaton behind the last token."""
        return self._states[-1]

    @property
    def ended(self) -> bool:
        """Tell whether a token has ended the reply."""
        return self.state == _ENDED

    def accept(self, token: int) -> bool:
        """Advance over a token; False, and nothing changed, when it can't be said here."""
        following = self._following(token)
        if following == DEAD:
            return False
        self._states.append(following)
        self._watch()
        return True

    def rollback(self, count: int) -> None:
        """Go back over the last `count` tokens."""
        if count:
            del self._states[-count:]
        if self._closing_at is not None and self._closing_at >= len(self._states):
            self._closing_at = None

    def reset(self) -> None:
        """Go back to the beginning."""
        self.rollback(len(self._states) - 1)

    def mask(self) -> NDArray[np.int32]:
        """Return the logits mask for the next token."""
        row = self._masks.row(self.state)
        forced = self._forced()
        if forced is None:
            return row
        only = np.zeros_like(row)
        allow(only, (forced,))
        return only

    def _following(self, token: int) -> int:
        if self.ended:
            return DEAD
        automaton = self._masks.automaton
        if token in self._vocabulary.ends:
            return _ENDED if automaton.accepting[self.state] else DEAD
        spelled = self._vocabulary.tokens[token] if token < len(self._vocabulary.tokens) else None
        return automaton.step(self.state, spelled) if spelled else DEAD

    def _watch(self) -> None:
        """Note where the think block has to end."""
        budget, said = self._budget, len(self._states) - 1
        if budget and self._closing_at is None and said >= budget.tokens:
            self._closing_at = said if self.state == budget.resting else None

    def _forced(self) -> int | None:
        """Return the token of the think block's end that has to come now, if any."""
        if self._budget is None or self._closing_at is None:
            return None
        place = len(self._states) - 1 - self._closing_at
        return self._budget.close[place] if place < len(self._budget.close) else None
