"""Forced runs: where the automaton has one way on, the text is known, and so are its tokens."""

import codecs
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from falsework.grammars.dfa import DEAD, DFA
from falsework.grammars.vocabulary import Vocabulary

RUN_LIMIT = 2048
"""How many bytes of a forced run are looked at."""

Encode = Callable[[str], Sequence[int]]


def forced_bytes(automaton: DFA, state: int) -> tuple[bytes, int]:
    """Return all that can be said from a state until there is a choice, and the state behind it."""
    said = bytearray()
    while len(said) < RUN_LIMIT and not automaton.is_accepting(state):
        ways = list(automaton.transitions(state))
        if len(ways) != 1 or automaton.sizes[ways[0][0]] != 1:
            break
        said.append(int((automaton.classes == ways[0][0]).argmax()))
        state = ways[0][1]
    return bytes(said), state


class ForcedRun(NamedTuple):
    """The tokens of a forced run, as the model is used to see them.

    `forced` are certain. `open_end`, at most one token, is likely and no more: it may join with
    what follows (a closing quote and the comma behind it are one token in most vocabularies).
    """

    forced: tuple[int, ...] = ()
    open_end: tuple[int, ...] = ()


def forced_tokens(automaton: DFA, state: int, vocabulary: Vocabulary, encode: Encode) -> ForcedRun:
    """Return the run from a state.

    Where the reply ends with it, its last token and the end token are forced as well.
    """
    said, behind = forced_bytes(automaton, state)
    end = _end(automaton, behind, vocabulary)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(said)
    except UnicodeDecodeError:
        return ForcedRun()  # it begins inside a character
    tokens = tuple(encode(text)) if text else ()
    spelled = [vocabulary.tokens[t] if t < len(vocabulary.tokens) else None for t in tokens]
    if None in spelled or b"".join(filter(None, spelled)) != text.encode():
        return ForcedRun()  # this tokenizer normalises text: what it would say isn't what is forced
    if end:
        return ForcedRun(tokens + end)
    for count in range(len(tokens) - 1):
        if _goes_on(automaton, state, said, vocabulary):
            return ForcedRun(tokens[:count])
        state = automaton.step(state, spelled[count] or b"")
        said = said[len(spelled[count] or b"") :]
    return ForcedRun(tokens[:-1], tokens[-1:])


def _goes_on(automaton: DFA, state: int, said: bytes, vocabulary: Vocabulary) -> bool:
    """Tell whether one token may say all of this and more, as the mark of a family does."""
    if len(said) >= vocabulary.longest:
        return False
    ordered = vocabulary.ordered
    at = bisect_right(ordered, (said, len(vocabulary.tokens)))
    while at < len(ordered) and ordered[at][0].startswith(said):
        if automaton.step(state, ordered[at][0]) != DEAD:
            return True
        at += 1
    return False


def _end(automaton: DFA, state: int, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Return the token that ends the reply where nothing else can come."""
    over = automaton.is_accepting(state) and not any(automaton.transitions(state))
    return tuple(vocabulary.ends[:1]) if over else ()
