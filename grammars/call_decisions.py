"""Where a reply goes on with a call or without one: the states, and the tokens of each way.

Greedy decoding compares single tokens; a call may be spelled in several ways, and text begins with
any of thousands of tokens. At these places the engine compares the ways by their summed
probability, see `server/engines/vllm/call_decisions.py`.
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from falsework.grammars.call_decision import CallDecision
from falsework.grammars.call_formats import (
    PLACEHOLDERS,
    ReasoningTags,
    ToolCallFormat,
    literal_parts,
)
from falsework.grammars.counted_loops import LOOP, Loops
from falsework.grammars.determinize import Edges
from falsework.grammars.dfa import DEAD, DFA, START
from falsework.grammars.jump_forward import Encode
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.reply_grammar import alternative_formats
from falsework.grammars.vocabulary import Vocabulary

_SAMPLES = {"{n}": "0", "{id}": "call00000"}
"""A text for each placeholder."""


def call_decisions(
    form: ReplyFormat, automaton: DFA | None, vocabulary: Vocabulary, encode: Encode
) -> tuple[CallDecision, ...]:
    """Return the decisions of a form's replies; without its automaton only that at the beginning.

    That is left out where all that a family says begins with the same mark (gpt-oss).
    """
    if not form.choice.callable_tools(form.tools):
        return ()
    formats = (form.markup, *alternative_formats(form))
    beginnings = _beginnings(form, automaton)
    made = []
    if form.choice.mode == "auto":
        calls, unclear = _first_tokens(formats, form.think, vocabulary, encode)
        if calls and beginnings:
            made.append(CallDecision("first", beginnings, calls, unclear))
    for one in formats if automaton and form.choice.parallel else ():
        heads = beginnings or (START,)
        behind = {state for head in heads for state in _behind_calls(automaton, one, head)}
        calls, unclear = _another_tokens(one, vocabulary, encode)
        if one.parallel and calls and behind:
            made.append(CallDecision("another", tuple(sorted(behind)), calls, unclear))
    return tuple(made)


def split_states(automaton: DFA, states: Iterable[int]) -> tuple[DFA, dict[int, int]]:
    """Return an automaton in which no token goes on across `states`, and a twin for each of them.

    A text ends at such a state and goes on at its twin, so that what comes next is a token of its
    own. The states are rows outside counted loops.
    """
    rows = sorted(states)
    if not rows:
        return automaton, {}
    starts, lows, highs, targets = automaton.edges
    split = np.zeros(automaton.rows, np.bool_)
    split[rows] = True
    counts = np.diff(starts)
    moved = [np.arange(starts[row], starts[row + 1]) for row in rows]
    order = np.concatenate((np.flatnonzero(~np.repeat(split, counts)), *moved))
    of_rows = np.concatenate((np.where(split, 0, counts), counts[rows]))
    new_starts = np.concatenate(([0], np.cumsum(of_rows))).astype(np.int32)
    final = np.concatenate((automaton.final, automaton.final[rows]))
    final[rows] = False
    made = DFA(
        automaton.classes,
        Edges(new_starts, lows[order], highs[order], targets[order]),
        final,
        Loops(
            np.concatenate((automaton.loops.of_row, automaton.loops.of_row[rows])),
            automaton.loops.bounds,
        ),
    )
    return made, {row: automaton.rows + number for number, row in enumerate(rows)}


def _beginnings(form: ReplyFormat, automaton: DFA | None) -> tuple[int, ...]:
    """Return the states in which calls or an answer may begin, the think block being over."""
    if form.think is None:
        return (START,)
    if automaton is None:
        return () if form.thinking else (START,)
    block = form.think.closing + form.think.gap
    if form.thinking:
        heads = [automaton.step(START, block.encode())]
    else:
        heads = [START, automaton.step(START, (form.think.opening + block).encode())]
    return tuple(state for state in heads if state != DEAD)


def _behind_calls(automaton: DFA | None, markup: ToolCallFormat, head: int) -> Sequence[int]:
    """Return the states behind a call, where the first call may begin in state `head`."""
    names = automaton.step(head, _sample(markup.prefix)) if automaton else DEAD
    if automaton is None or names == DEAD:
        return ()
    again = _sample(markup.separator + markup.before_name)
    rows = np.arange(automaton.rows)
    for byte in again:
        rows = _targets(automaton, int(automaton.classes[byte]))[rows]
    separators = (markup.separator, *markup.other_separators)
    ways = [(_sample(one + markup.before_name))[:1] for one in separators]
    ways.append(markup.closing.encode()[:1])
    classes = {int(automaton.classes[way[0]]) for way in ways if way}
    uncounted = automaton.loops.bounds[automaton.loops.of_row, LOOP] < 0
    found = ((rows == names) & uncounted).nonzero()[0]
    closing = markup.closing.encode()
    return [
        row
        for row in found.tolist()
        if {number for number, _ in automaton.transitions(row)} <= classes
        and automaton.is_accepting(automaton.step(row, closing))
    ]


def _targets(automaton: DFA, number: int) -> NDArray[np.int32]:
    """Return the row behind each row and a byte of class `number`, counted loops aside."""
    starts, lows, highs, targets = automaton.edges
    found = (lows <= number) & (number <= highs)
    behind = np.full(automaton.rows, DEAD, np.int32)
    behind[np.repeat(np.arange(automaton.rows), np.diff(starts))[found]] = targets[found]
    return behind


@functools.lru_cache(maxsize=64)
def _first_tokens(
    formats: tuple[ToolCallFormat, ...],
    think: ReasoningTags | None,
    vocabulary: Vocabulary,
    encode: Encode,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens that begin a call, and those that may begin anything.

    A token shorter than the one by which a call usually begins is a call's where no text begins so.
    """
    heads = [_head(one.prefix) for one in formats]
    openings = [(head.encode(), _usual(head, vocabulary, encode)) for head in heads]
    others = _other_beginnings(formats[0], think)
    barred = formats[0].barred.encode()
    calls: list[int] = []
    unclear: list[int] = []
    for number, token in _spelled(vocabulary):
        usual = [shortest for opening, shortest in openings if _meet(opening, token)]
        if any(_meet(other, token) for other in others):
            unclear.append(number)
        elif usual:
            certain = token[0] in barred or any(len(token) >= length for length in usual)
            (calls if certain else unclear).append(number)
    return tuple(calls), tuple(unclear)


def _usual(text: str, vocabulary: Vocabulary, encode: Encode) -> int:
    """Return how many bytes the first token of a text usually has."""
    first = next(iter(encode(text)), None) if text else None
    return len(vocabulary.tokens[first] or b"") if first is not None else 0


def _other_beginnings(markup: ToolCallFormat, think: ReasoningTags | None) -> list[bytes]:
    """Return the marks that a reply may begin with before it is a call or text."""
    marks = [markup.leading, markup.answer_opening, markup.text_opening]
    marks += [think.leading, think.opening] if think else []
    return [mark.encode() for mark in marks if mark]


@functools.lru_cache(maxsize=64)
def _another_tokens(
    markup: ToolCallFormat, vocabulary: Vocabulary, encode: Encode
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens that go on with another call, and those that may end the calls as well.

    What both may begin with belongs to the one that usually begins with it.
    """
    again = [one + markup.before_name for one in (markup.separator, *markup.other_separators)]
    texts = [head.encode() for head in map(_head, again) if head]
    usual = {tuple(encode(head))[:1] for head in map(_head, again)}
    of_end = tuple(encode(markup.closing))[:1]
    calls: list[int] = []
    unclear: list[int] = []
    for number, token in _spelled(vocabulary):
        if any(_meet(text, token) for text in texts):
            ends = bool(markup.closing) and _meet(markup.closing.encode(), token)
            if not ends or ((number,) in usual and (number,) != of_end):
                calls.append(number)
            elif (number,) != of_end or (number,) in usual:
                unclear.append(number)
    return tuple(calls), tuple(unclear)


def _spelled(vocabulary: Vocabulary) -> Iterable[tuple[int, bytes]]:
    return ((number, token) for number, token in enumerate(vocabulary.tokens) if token)


def _meet(text: bytes, token: bytes) -> bool:
    """Tell whether one begins with the other."""
    return text.startswith(token) or token.startswith(text)


def _head(literal: str) -> str:
    """Return a literal up to its first placeholder."""
    first = next(iter(literal_parts(literal)), "")
    return "" if first in PLACEHOLDERS else first


def _sample(literal: str) -> bytes:
    """Return a literal with a text for each placeholder."""
    return "".join(_SAMPLES.get(part, part) for part in literal_parts(literal)).encode()
