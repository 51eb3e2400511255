"""The law of masks: a token is admitted exactly where the automaton can say its bytes."""

import random
from pathlib import Path
from typing import Any

import pytest
from support.real_tokenizers import NAMES, tokenizer

from falsework.grammars.dfa import DEAD, DFA, START, compile_dfa
from falsework.grammars.free_text import text_until_marker
from falsework.grammars.json_schema import arguments_grammar
from falsework.grammars.masks import MAX_CACHED_MASKS, TokenMasks, tokens_in_mask
from falsework.grammars.vocabulary import Vocabulary

LENGTHS = (0, 1, 2, 3, 5, 40, 80, 89, 90, 5000)

SCHEMAS: dict[str, Any] = {
    "any string": {"type": "string"},
    "a bounded string": {"type": "string", "maxLength": 5},
    "a long bounded string": {"type": "string", "minLength": 3, "maxLength": 90},
    "a string that may be very long": {"type": "string", "maxLength": 10_000},
    "a string that has to be long": {"type": "string", "minLength": 100},
    "anything": {},
    "a choice": {"enum": ["Zürich", "Zug", "東京", 17, None]},
}


def admitted(automaton: DFA, state: int, vocabulary: Vocabulary) -> list[int]:
    """Return the tokens that may follow, found by saying each of them."""
    ends = set(vocabulary.ends)
    return [
        number
        for number, token in enumerate(vocabulary.tokens)
        if (number in ends and automaton.is_accepting(state))
        or (token and number not in ends and automaton.step(state, token) != DEAD)
    ]


def walk(automaton: DFA, masks: TokenMasks, vocabulary: Vocabulary, steps: int) -> set[int]:
    """Return the states behind the first steps of a random reply."""
    draw, state, seen = random.Random(7), START, {START}
    for _ in range(steps):
        may = [
            token for token in tokens_in_mask(masks.mask_for(state)) if token not in vocabulary.ends
        ]
        if not may:
            break
        state = automaton.step(state, vocabulary.tokens[draw.choice(may)] or b"")
        seen.add(state)
    return seen


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", SCHEMAS)
def test_a_mask_admits_what_the_automaton_can_say(name: str, value: str, smollm2: Path) -> None:
    model = tokenizer(name, smollm2)
    schema = {"type": "object", "properties": {"a": SCHEMAS[value]}, "required": ["a"]}
    automaton = compile_dfa(arguments_grammar(schema), model.vocabulary.alphabet)
    masks = TokenMasks(automaton, model.vocabulary, model.width)
    string = automaton.step(START, b'{"a": "')
    states = {automaton.step(string, b"x" * length) for length in LENGTHS} - {DEAD}
    if name == "smollm2":
        states |= walk(automaton, masks, model.vocabulary, 8)
    for state in states:
        assert tokens_in_mask(masks.mask_for(state)) == admitted(automaton, state, model.vocabulary)


@pytest.mark.parametrize("marker", ["<tool_call>", "</think>", '{"name": "', "x", "é"])
def test_a_mask_of_free_text_knows_the_marker(marker: str, smollm2: Path) -> None:
    model = tokenizer("smollm2", smollm2)
    automaton = compile_dfa(text_until_marker(marker), model.vocabulary.alphabet)
    masks = TokenMasks(automaton, model.vocabulary, model.width)
    half = automaton.step(START, marker.encode()[:-1])
    for state in {START, half, *walk(automaton, masks, model.vocabulary, 3)}:
        assert tokens_in_mask(masks.mask_for(state)) == admitted(automaton, state, model.vocabulary)


def test_no_more_masks_are_kept_than_the_bound(smollm2: Path) -> None:
    model = tokenizer("smollm2", smollm2)
    schema = {"type": "object", "properties": {"a": {"enum": [f"{n} Zug" for n in range(600)]}}}
    automaton = compile_dfa(arguments_grammar(schema), model.vocabulary.alphabet)
    masks = TokenMasks(automaton, model.vocabulary, model.width)
    for state in range(START, automaton.rows):
        masks.mask_for(state)
    assert automaton.rows > MAX_CACHED_MASKS
    assert len(masks) == MAX_CACHED_MASKS
