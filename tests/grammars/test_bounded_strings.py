"""Bounded strings are counted, not written out: both say exactly the same."""

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falsework.grammars import json_schema
from falsework.grammars.dfa import DEAD, DFA, START, compile_dfa, from_bytes
from falsework.grammars.events import Tool
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.reply_grammar import reply_grammar
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.dialects import DIALECTS

BOUNDS = st.tuples(st.integers(0, 4), st.integers(0, 5)).map(lambda two: (two[0], sum(two)))


def bounded(low: int, high: int | None) -> dict[str, Any]:
    return {"type": "string", "minLength": low, **({} if high is None else {"maxLength": high})}


def difference(one: DFA, other: DFA) -> bytes | None:
    """Return a text that only one of two automata can say, or that may end in only one."""
    representatives = {
        (a, b): byte for byte, (a, b) in enumerate(zip(one.classes, other.classes, strict=True))
    }
    seen = {(START, START)}
    queue = deque([(START, START, b"")])
    while queue:
        here, there, said = queue.popleft()
        if one.is_accepting(here) != other.is_accepting(there):
            return said
        for byte in representatives.values():
            text = bytes([byte])
            pair = (one.step(here, text), other.step(there, text))
            if (pair[0] == DEAD) != (pair[1] == DEAD):
                return said + text
            if pair[0] != DEAD and pair not in seen:
                seen.add(pair)
                queue.append((*pair, said + text))
    return None


def both(schema: Any) -> tuple[DFA, DFA]:
    expression = json_schema.value_grammar(schema)
    return compile_dfa(expression), compile_dfa(expression, counting=False)


@given(BOUNDS)
@settings(deadline=None)  # the first is compiled by numba
def test_a_counted_string_is_the_one_written_out(bounds: tuple[int, int]) -> None:
    assert difference(*both(bounded(*bounds))) is None


@pytest.mark.slow
@given(BOUNDS, BOUNDS, st.booleans())
@settings(deadline=None)
def test_counted_strings_beside_others_are_those_written_out(
    one: tuple[int, int], other: tuple[int, int], required: bool
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"anyOf": [bounded(*one), {"type": "null"}]},
            "b": {"type": "array", "items": bounded(*other), "maxItems": 2},
        },
        "required": ["b"] if required else [],
    }

    assert difference(*both(schema)) is None


@pytest.mark.parametrize(
    "meeting",
    [
        [bounded(0, 3), bounded(2, 5)],
        [bounded(2, 4), {"enum": ["a", "abcdef", "abc"]}],
        [bounded(1, None), bounded(0, 2)],
    ],
)
def test_strings_that_begin_alike_are_written_out_and_still_exact(meeting: list[Any]) -> None:
    automaton, written_out = both({"anyOf": meeting})

    assert difference(automaton, written_out) is None
    assert (automaton.loops.bounds[:, 0] == -1).all()


def test_a_string_of_a_hundred_thousand_characters_takes_no_more_than_a_short_one() -> None:
    short, _ = both(bounded(0, 5))
    long = compile_dfa(json_schema.value_grammar(bounded(0, 100_000)))

    assert long.rows == short.rows
    assert long.accepts('"' + "é" * 100_000 + '"')
    assert not long.accepts('"' + "é" * 100_001 + '"')


def test_two_hundred_tools_of_long_strings_are_one_constraint() -> None:
    parameters = {
        "type": "object",
        "properties": {f"field_{n}": bounded(1, 1000) for n in range(6)},
        "required": [],
    }
    tools = tuple(Tool(f"tool_{n}", "", parameters) for n in range(200))
    form = ReplyFormat(DIALECTS["hermes"].markup, tools, ToolChoice("auto"))

    automaton = compile_dfa(reply_grammar(form))

    assert automaton.accepts('<tool_call>\n{"name": "tool_7", "arguments": {}}\n</tool_call>')


def test_a_counted_state_survives_packing() -> None:
    automaton, _ = both(bounded(2, 7))
    again = from_bytes(automaton.to_bytes())

    for length in range(9):
        text = '"' + "x" * length + '"'
        assert again.accepts(text) == automaton.accepts(text) == (2 <= length <= 7)


@pytest.mark.parametrize("state", [-1, 10**6, 10**12])
def test_a_state_that_is_not_there_is_known_as_such(state: int) -> None:
    automaton, _ = both(bounded(0, 7))

    assert not automaton.is_state(state)
    assert automaton.is_state(automaton.step(START, b'"xxxxxxx'))
