"""Where in a text its grammar last left a choice: what to bar so that another text comes."""

import numpy as np
from llguidance import LLMatcher

from falsework.grammars.dfa import DFA, START


def last_choice(grammar: DFA | LLMatcher, text: bytes, start: int, end: int) -> int | None:
    """Return the end of the last byte in text[start:end] that others could have replaced.

    None where there was none, or where the grammar can't say the text. An LLMatcher is one over
    single bytes, and is used up.
    """
    of_kind = _of_automaton if isinstance(grammar, DFA) else _of_llguidance
    return of_kind(grammar, text, start, end)  # type: ignore[arg-type]


def _of_automaton(automaton: DFA, text: bytes, start: int, end: int) -> int | None:
    state, last = automaton.step(START, text[:start]), None
    for at in range(start, end):
        ways = sum(int(automaton.sizes[number]) for number, _ in automaton.transitions(state))
        if ways + automaton.is_accepting(state) > 1:
            last = at + 1
        state = automaton.step(state, text[at : at + 1])
    return last


def _of_llguidance(matcher: LLMatcher, text: bytes, start: int, end: int) -> int | None:
    last = None
    if matcher.try_consume_tokens(list(text[:start])) != start:
        return None
    for at in range(start, end):
        ways = int(np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8)).sum())
        if ways > 1:
            last = at + 1
        if matcher.try_consume_tokens([text[at]]) != 1:
            return None
    return last
