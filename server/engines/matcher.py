"""One reply while it is decoded: where it stands in its automaton, and what may come next."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from falsework.grammars.dfa import DEAD, DFA, START
from falsework.grammars.jump_forward import RUN_LIMIT, Encode, ForcedRun, forced_tokens
from falsework.grammars.masks import TokenMasks
from falsework.grammars.vocabulary import Vocabulary, set_bits

_ENDED = -1


@dataclass(frozen=True)
class ThinkingBudget:
    """After `tokens` tokens the think block ends.

    As soon as the automaton is in state `resting` (between two characters of the block), the
    tokens `close` are forced.
    """

    tokens: int
    resting: int
    close: tuple[int, ...]


class CompiledGrammar:
    """What all replies under one automaton share: masks and forced runs, kept per state."""

    def __init__(self, automaton: DFA, vocabulary: Vocabulary, width: int, encode: Encode) -> None:
        """Masks are `width` words of 32 tokens each, as vLLM's bitmask has them."""
        self.automaton = automaton
        self.vocabulary = vocabulary
        self.masks = TokenMasks(automaton, vocabulary, width)
        self._encode = encode
        self._runs: dict[int, ForcedRun] = {}

    def forced_run(self, state: int) -> ForcedRun:
        """Return the forced run from a state; an empty one where there is a choice."""
        state = self.automaton.representative(state, RUN_LIMIT)
        run = self._runs.get(state)
        if run is None:
            run = forced_tokens(self.automaton, state, self.vocabulary, self._encode)
            self._runs[state] = run
        return run


class MatcherState(NamedTuple):
    """Where a reply stands: its state, and the tokens that are forced from here."""

    state: int
    forced: tuple[int, ...] = ()


class GrammarMatcher:
    """Follows one reply token by token, and can go back."""

    def __init__(
        self,
        constrainer: CompiledGrammar,
        budget: ThinkingBudget | None = None,
        start: int = START,
    ) -> None:
        """Begin in state `start`; raise ValueError where there is no such state."""
        if not constrainer.automaton.is_state(start):
            msg = f"there is no state {start}"
            raise ValueError(msg)
        self._constrainer = constrainer
        self._budget = budget
        self._places: list[MatcherState] = []
        self._places.append(self._forced(start))

    @property
    def is_terminated(self) -> bool:
        """Tell whether a token has ended the reply."""
        return self._places[-1].state == _ENDED

    @property
    def forced_tokens(self) -> tuple[int, ...]:
        """Return the tokens that have to come next, whatever the model would choose."""
        return self._places[-1].forced

    @property
    def tentative_token(self) -> tuple[int, ...]:
        """Return the token that comes next unless known text is said in another."""
        return self._open_end(self._places[-1])

    @property
    def last_was_sampled(self) -> bool:
        """Tell whether the last token was the model's choice, and no known text."""
        if len(self._places) == 1:
            return False
        place = self._places[-2]
        return not place.forced and not self._open_end(place)

    @property
    def position(self) -> int:
        """Return where the reply stands in its automaton, counted rounds aside."""
        return self._places[-1].state % len(self._constrainer.automaton.table)

    def accept_token(self, token: int) -> bool:
        """Advance over a token; False, and nothing changed, when it can't be said here."""
        forced = self.forced_tokens
        following = self._following(token)
        if following == DEAD or (forced and token != forced[0]):
            return False
        if len(forced) > 1:
            self._places.append(MatcherState(following, forced[1:]))
        else:
            self._places.append(self._forced(following))
        return True

    def rollback(self, count: int) -> None:
        """Go back over the last `count` tokens."""
        if count:
            del self._places[-count:]

    def reset(self) -> None:
        """Go back to the beginning."""
        del self._places[1:]

    def token_bitmask(self) -> NDArray[np.int32]:
        """Return the logits mask for the next token."""
        place = self._places[-1]
        if not place.forced:
            return self._constrainer.masks.mask_for(place.state)
        only = np.zeros(self._constrainer.masks.width, np.int32)
        set_bits(only, place.forced[:1])
        return only

    def _following(self, token: int) -> int:
        if self.is_terminated:
            return DEAD
        state = self._places[-1].state
        automaton, vocabulary = self._constrainer.automaton, self._constrainer.vocabulary
        if token in vocabulary.ends:
            return _ENDED if automaton.is_accepting(state) else DEAD
        spelled = vocabulary.tokens[token] if token < len(vocabulary.tokens) else None
        return automaton.step(state, spelled) if spelled else DEAD

    def _open_end(self, place: MatcherState) -> tuple[int, ...]:
        if place.forced or place.state == _ENDED:
            return ()
        return self._constrainer.forced_run(place.state).open_end

    def _forced(self, state: int) -> MatcherState:
        """Return the place that comes next in `_places`, with what is forced there."""
        budget, said = self._budget, len(self._places)
        if state == _ENDED:
            return MatcherState(state)
        if budget and state == budget.resting and said >= budget.tokens:
            return MatcherState(state, budget.close)
        return MatcherState(state, self._constrainer.forced_run(state).forced)
