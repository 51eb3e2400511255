"""What a client is told of what the model says, streamed and not."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.chat_bodies import named
from support.scripted_app import calls, chunks, whole
from support.scripted_chat import TOOLS, F, G, cut, folded, says, told

from falsework.grammars.output_parser import OutputParseError
from falsework.server.engines.base import EngineDeadError
from falsework.server.engines.scripted import ScriptedEngine
from falsework.server.errors import InternalServerError
from falsework.server.generation.turn import TurnBuilder

REPLIES = {
    "Hello!": ("Hello!", [], "stop"),
    "": ("", [], "stop"),
    calls(F): (None, [F], "tool_calls"),
    calls(F, G): (None, [F, G], "tool_calls"),
    f"Let me see.\n{calls(G)}": ("Let me see.\n", [G], "tool_calls"),
    "a <tool_ b": ("a <tool_ b", [], "stop"),
}


@pytest.mark.parametrize("text", REPLIES)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.lists(st.integers(0, 200), max_size=12))
def test_a_reply_is_the_same_streamed_and_whole_wherever_it_is_cut(
    plain: TurnBuilder, text: str, at: list[int]
) -> None:
    pieces = cut(text, at)
    content, made, finish = REPLIES[text]

    one = told(whole(says(*pieces), plain, tools=TOOLS))
    other = folded(chunks(says(*pieces), plain, tools=TOOLS))

    assert one == other == (content, None, made, finish)


@pytest.mark.parametrize("length", range(len(calls(F, G))))
def test_a_call_that_the_token_limit_cuts_is_never_reported(
    plain: TurnBuilder, length: int
) -> None:
    text = calls(F, G)[:length]
    complete = [F] if len(text) >= len(calls(F)) else []

    one = told(whole(says(text, finish="length"), plain, tools=TOOLS, tool_choice="required"))
    other = folded(chunks(says(*text, finish="length"), plain, tools=TOOLS, tool_choice="required"))

    assert one == other
    assert one[2] == complete
    assert one[3] == "length"


def test_calls_are_told_as_they_are_decoded_where_the_operator_wants_it(plain: TurnBuilder) -> None:
    half = calls(F)[: len(calls(F)) // 2 + 12]

    stream = chunks(
        says(*half, finish="length"), plain, half_calls=True, tools=TOOLS, tool_choice="required"
    )
    unstreamed = told(whole(says(half, finish="length"), plain, tools=TOOLS))

    begun = [c["choices"][0]["delta"]["tool_calls"][0] for c in stream if "tool_calls" in str(c)]
    assert len(begun) > 2
    assert begun[0]["function"]["name"] == F[0]
    assert stream[-1]["choices"][0]["finish_reason"] == "length"
    assert unstreamed[2] == []


def test_a_stream_tells_calls_in_the_order_that_clients_need(plain: TurnBuilder) -> None:
    stream = chunks(says(*calls(F, G)), plain, tools=TOOLS)

    deltas = [chunk["choices"][0]["delta"] for chunk in stream]
    entries = [entry for delta in deltas[1:-1] for entry in delta["tool_calls"]]
    first, second = ([entry for entry in entries if entry["index"] == index] for index in (0, 1))

    assert deltas[0] == {"role": "assistant", "content": None, "refusal": None}
    assert deltas[-1] == {}
    assert all(len(delta["tool_calls"]) == 1 for delta in deltas[1:-1])
    assert entries == first + second
    for call in (first, second):
        assert call[0]["id"].startswith("call_")
        assert (len(call[0]["id"]), call[0]["type"]) == (29, "function")
        assert call[0]["function"]["arguments"] == ""
        assert all(set(entry) == {"index", "function"} for entry in call[1:])
        assert all(set(entry["function"]) == {"arguments"} for entry in call[1:])
    assert len(first) > 2, "arguments are told as they were decoded"


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("auto", "tool_calls"), ("required", "tool_calls"), (named("f"), "stop")],
)
def test_calls_end_a_reply_as_they_do_at_openai(
    plain: TurnBuilder, choice: Any, finish: str
) -> None:
    reply = whole(says(calls(F)), plain, tools=TOOLS, tool_choice=choice)

    assert told(reply) == (None, None, [F], finish)


@pytest.mark.parametrize(
    ("pieces", "stop", "content"),
    [
        (["Hello world"], ["wor"], "Hello "),
        (["Hel", "lo wo", "r", "ld"], ["wor"], "Hello "),
        (["a", "b", "a", "b", "c"], ["abc"], "ab"),
        (["one two"], ["two", "one"], ""),
        (["no", "thing"], ["xyz", "ngs"], "nothing"),
        (["end with wo"], ["wor"], "end with wo"),
        (["aab"], ["ab", "b"], "a"),
    ],
)
def test_a_stop_string_ends_the_text_and_is_left_out(
    plain: TurnBuilder, pieces: list[str], stop: list[str], content: str
) -> None:
    one = told(whole(says(*pieces), plain, stop=stop))
    other = folded(chunks(says(*pieces), plain, stop=stop))

    assert one == other == (content, None, [], "stop")


def test_a_stop_string_frees_the_engine_though_it_would_go_on(plain: TurnBuilder) -> None:
    engine = says("a", "STOP", "b", finish="hang")

    reply = whole(engine, plain, stop="STOP")

    assert told(reply)[0] == "a"
    assert reply["usage"]["completion_tokens"] == 2
    assert engine.open == 0


def test_blank_text_before_a_call_is_not_an_answer(plain: TurnBuilder) -> None:
    reply = whole(says("\n", " \n", calls(G)), plain, tools=TOOLS)

    assert told(reply) == (None, None, [G], "tool_calls")


def test_blank_text_before_text_belongs_to_it(plain: TurnBuilder) -> None:
    assert told(whole(says("\n", "  ", "a"), plain))[0] == "\n  a"
    assert told(whole(says("\n", "  "), plain))[0] == "\n  "


@pytest.mark.parametrize(
    ("engine", "fault"),
    [
        (says("a", finish="error"), InternalServerError),
        (says("a", finish="mute"), InternalServerError),
        (says("a", finish="gone"), EngineDeadError),
        (says(calls(F)[:-20]), OutputParseError),
    ],
)
def test_what_the_engine_fails_at_is_never_told_as_a_reply(
    plain: TurnBuilder, engine: ScriptedEngine, fault: type[Exception]
) -> None:
    with pytest.raises(fault):
        whole(engine, plain, tools=TOOLS)
    with pytest.raises(fault):
        chunks(engine, plain, tools=TOOLS)
    assert engine.open == 0
