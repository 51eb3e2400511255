"""The matcher of one reply under a grammar of llguidance; its interface is GrammarMatcher's."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import llguidance
import numpy as np
from numpy.typing import NDArray

from falsework.grammars import CallDecision
from falsework.grammars.dfa import DEAD, DFA, START
from falsework.grammars.jump_forward import Encode
from falsework.grammars.llguidance_grammar import GrammarFailure, compile_grammar
from falsework.grammars.vocabulary import Vocabulary, clear_bits, set_bits
from falsework.server.engines.base import ThinkingBudget


class LlguidanceGrammar:
    """What all replies under one grammar share: the compiled grammar, which each of them copies."""

    def __init__(
        self,
        grammar: str,
        tokenizer: llguidance.LLTokenizer,
        vocabulary: Vocabulary,
        width: int,
        encode: Encode,
    ) -> None:
        """Masks are `width` words of 32 tokens each; raise UnsupportedGrammar."""
        self.vocabulary = vocabulary
        self.width = width
        self.encode = encode
        self.nbytes = len(grammar)
        self._compiled = compile_grammar(tokenizer, grammar)

    def copy(self) -> llguidance.LLMatcher:
        """Return a matcher at the beginning."""
        return self._compiled.deep_copy()


class _Place(NamedTuple):
    """Where a reply stands.

    `forced` are the tokens that have to come next; `open_end` at most one more that is likely;
    `run` is the last forced run, which tells one field of a reply from another; `block` the state
    of the think block's automaton.
    """

    forced: tuple[int, ...]
    open_end: tuple[int, ...]
    run: tuple[int, ...]
    block: int
    ended: bool = False


class LlguidanceMatcher:
    """Follows one reply token by token, and can go back; raises GrammarFailure beyond limits."""

    def __init__(
        self,
        grammar: LlguidanceGrammar,
        budget: ThinkingBudget | None = None,
        block: DFA | None = None,
        prefix: Sequence[int] = (),
        decisions: Sequence[CallDecision] = (),
    ) -> None:
        """Begin behind the tokens `prefix`; raise ValueError where they can't be said.

        `block` is the automaton of a reply's think block, by whose states `budget` goes; of
        `decisions` that at the beginning of a reply is made.
        """
        self._grammar = grammar
        self._budget = budget if block else None
        self._block = block
        first = [one for one in decisions if one.kind == "first" and not prefix]
        self._first = first[0] if first else None
        self._matcher = grammar.copy()
        if self._matcher.try_consume_tokens(list(prefix)) != len(prefix):
            msg = "the grammar can't say what the prompt ends with"
            raise ValueError(msg)
        self._places: list[_Place] = []
        thought = block.step(START, grammar.vocabulary.text_of(prefix)) if block else DEAD
        self._places.append(self._place(thought, ()))

    @property
    def is_terminated(self) -> bool:
        """Tell whether a token has ended the reply."""
        return self._places[-1].ended

    @property
    def forced_tokens(self) -> tuple[int, ...]:
        """Return the tokens that have to come next, whatever the model would choose."""
        return self._places[-1].forced

    @property
    def tentative_token(self) -> tuple[int, ...]:
        """Return the token that comes next unless known text is said in another."""
        return self._places[-1].open_end

    @property
    def last_was_sampled(self) -> bool:
        """Tell whether the last token was the model's choice, and no known text."""
        if len(self._places) == 1:
            return False
        place = self._places[-2]
        return not place.forced and not place.open_end

    @property
    def decision(self) -> CallDecision | None:
        """Return the decision between a call and none that the next token makes, if it does."""
        return self._first if len(self._places) == 1 else None

    @property
    def position(self) -> Hashable:
        """Return what tells this part of the reply from others: the known text before it."""
        return self._places[-1].run

    def accept_token(self, token: int) -> bool:
        """Advance over a token; False, and nothing changed, when it can't be said here."""
        place = self._places[-1]
        if place.ended or (place.forced and token != place.forced[0]):
            return False
        if token in self._grammar.vocabulary.ends:
            if not self._matcher.is_accepting():
                return False
            self._places.append(_Place((), (), (), DEAD, ended=True))
            return True
        if self._matcher.try_consume_tokens([token]) != 1:
            self._check()
            return False
        block = self._in_block(place.block, token)
        if len(place.forced) > 1:
            self._places.append(_Place(place.forced[1:], (), place.run, block))
        else:
            self._places.append(self._place(block, place.run))
        return True

    def rollback(self, count: int) -> None:
        """Go back over the last `count` tokens."""
        if not count:
            return
        said = count - self._places[-1].ended
        del self._places[-count:]
        self._matcher.rollback(said)
        self._check()

    def reset(self) -> None:
        """Go back to the beginning."""
        self.rollback(len(self._places) - 1)

    def token_bitmask(self) -> NDArray[np.int32]:
        """Return the logits mask for the next token."""
        place = self._places[-1]
        row = np.zeros(self._grammar.width, np.int32)
        if place.forced:
            set_bits(row, place.forced[:1])
            return row
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.int32)
        self._check()
        row[: len(mask)] = mask[: len(row)]
        clear_bits(row, self._grammar.vocabulary.ends)  # a client's grammar may name tokens
        if self._matcher.is_accepting():
            set_bits(row, self._grammar.vocabulary.ends)
        if not row.any():
            msg = "the grammar has no way on that this vocabulary can spell"
            raise GrammarFailure(msg)
        return row

    def _place(self, block: int, run: tuple[int, ...]) -> _Place:
        """Return the place that comes next in `_places`, with what is forced there."""
        budget = self._budget
        if budget and block == budget.resting and len(self._places) >= budget.tokens:
            return _Place(budget.close, (), budget.close, block)
        ends = self._grammar.vocabulary.ends
        forced = tuple(self._matcher.compute_ff_tokens())
        if not forced and self._matcher.is_stopped():
            forced = tuple(ends[:1])
        self._check()
        open_end = () if forced else self._open_end()
        return _Place(forced, open_end, forced or run, block)

    def _open_end(self) -> tuple[int, ...]:
        """Return the first token of text that is forced, but may be said in other tokens."""
        said = self._matcher.compute_ff_bytes()
        try:
            return tuple(self._grammar.encode(said.decode())[:1]) if said else ()
        except UnicodeDecodeError:
            return ()  # it begins or ends inside a character

    def _in_block(self, block: int, token: int) -> int:
        if self._block is None or block == DEAD:
            return DEAD
        return self._block.step(block, self._grammar.vocabulary.tokens[token] or b"")

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarFailure(self._matcher.get_error())
