"""The grammar matcher of one reply: its state in the DFA, the next mask, the forced tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from falsework.grammars import CallDecision, states_behind_calls
from falsework.grammars.call_decisions import split_states
from falsework.grammars.dfa import DEAD, DFA, START
from falsework.grammars.jump_forward import RUN_LIMIT, Encode, ForcedRun, forced_tokens
from falsework.grammars.masks import TokenMasks
from falsework.grammars.vocabulary import Vocabulary, set_bits
from falsework.server.engines.base import ThinkingBudget

_ENDED = -1


class CompiledGrammar:
    """A DFA with its caches of masks and forced runs, shared by all replies under it."""

    def __init__(
        self,
        automaton: DFA,
        vocabulary: Vocabulary,
        width: int,
        encode: Encode,
        decisions: Sequence[CallDecision] = (),
    ) -> None:
        """Masks are `width` words of 32 tokens each, as vLLM's bitmask has them.

        No token goes on across a state in which one of `decisions` is made behind a call.
        """
        automaton, self.twins = split_states(automaton, states_behind_calls(decisions))
        self.automaton = automaton
        self.vocabulary = vocabulary
        self.masks = TokenMasks(automaton, vocabulary, width)
        self._encode = encode
        self._runs: dict[int, ForcedRun] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the automaton."""
        return self.automaton.nbytes

    def step(self, state: int, text: bytes) -> int:
        """Return the state behind a token's text, DEAD when it can't be said there."""
        following = self.automaton.step(state, text)
        return self.twins.get(following, following)

    def forced_run(self, state: int) -> ForcedRun:
        """Return the forced run of a state; an empty one where several tokens are allowed."""
        state = self.automaton.representative(state, RUN_LIMIT)
        run = self._runs.get(state)
        if run is None:
            run = forced_tokens(self.automaton, state, self.vocabulary, self._encode)
            self._runs[state] = run
        return run


class MatcherState(NamedTuple):
    """The DFA state behind a token, and the tokens that are forced from there."""

    state: int
    forced: tuple[int, ...] = ()


class GrammarMatcher:
    """Follows one reply token by token, and can roll back."""

    def __init__(
        self,
        grammar: CompiledGrammar,
        budget: ThinkingBudget | None = None,
        prefix: Sequence[int] = (),
        decisions: Sequence[CallDecision] = (),
    ) -> None:
        """Begin behind the tokens `prefix`; raise ValueError where they can't be said."""
        start = START
        for byte in grammar.vocabulary.text_of(prefix):
            start = grammar.step(start, bytes([byte]))
        if start == DEAD:
            msg = "the grammar can't say what the prompt ends with"
            raise ValueError(msg)
        self._grammar = grammar
        self._budget = budget
        self._decisions = {
            grammar.twins.get(state, state): one for one in decisions for state in one.states
        }
        self._states: list[MatcherState] = []
        self._states.append(self._forced(start))

    @property
    def is_terminated(self) -> bool:
        """True once a token has ended the reply."""
        return self._states[-1].state == _ENDED

    @property
    def forced_tokens(self) -> tuple[int, ...]:
        """The only tokens that may come next, whatever the model would choose."""
        return self._states[-1].forced

    @property
    def tentative_token(self) -> tuple[int, ...]:
        """The usual next token of forced text that may be tokenised in another way; else empty."""
        return self._tentative(self._states[-1])

    @property
    def last_was_sampled(self) -> bool:
        """True if the last token was the model's choice, and no forced text."""
        if len(self._states) == 1:
            return False
        before = self._states[-2]
        return not before.forced and not self._tentative(before)

    @property
    def decision(self) -> CallDecision | None:
        """The decision between a call and none that the next token makes, if it does."""
        here = self._states[-1]
        return None if here.forced else self._decisions.get(here.state)

    @property
    def position(self) -> int:
        """The row of the DFA's table that the reply is at, without its counters."""
        return self._states[-1].state % self._grammar.automaton.rows

    def accept_token(self, token: int) -> bool:
        """Advance over a token; False, and nothing changed, when it isn't allowed here."""
        forced = self.forced_tokens
        state = self._next_state(token)
        if state == DEAD or (forced and token != forced[0]):
            return False
        if len(forced) > 1:
            self._states.append(MatcherState(state, forced[1:]))
        else:
            self._states.append(self._forced(state))
        return True

    def rollback(self, count: int) -> None:
        """Undo the last `count` tokens."""
        if count:
            del self._states[-count:]

    def reset(self) -> None:
        """Go back to the beginning."""
        del self._states[1:]

    def token_bitmask(self) -> NDArray[np.int32]:
        """Return the mask of the next token (words of 32 tokens, int32)."""
        current = self._states[-1]
        if not current.forced:
            return self._grammar.masks.mask_for(current.state)
        mask = np.zeros(self._grammar.masks.width, np.int32)
        set_bits(mask, current.forced[:1])
        return mask

    def _next_state(self, token: int) -> int:
        if self.is_terminated:
            return DEAD
        state = self._states[-1].state
        vocabulary = self._grammar.vocabulary
        if token in vocabulary.ends:
            return _ENDED if self._grammar.automaton.is_accepting(state) else DEAD
        spelled = vocabulary.tokens[token] if token < len(vocabulary.tokens) else None
        return self._grammar.step(state, spelled) if spelled else DEAD

    def _tentative(self, at: MatcherState) -> tuple[int, ...]:
        if at.forced or at.state == _ENDED:
            return ()
        return self._grammar.forced_run(at.state).open_end

    def _forced(self, state: int) -> MatcherState:
        """Return the next entry of `_states`: this state, with the tokens forced from it."""
        budget, accepted = self._budget, len(self._states)
        if state == _ENDED:
            return MatcherState(state)
        if budget and state == budget.resting and accepted >= budget.tokens:
            return MatcherState(state, budget.close)
        return MatcherState(state, self._grammar.forced_run(state).forced)
