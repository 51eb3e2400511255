"""Replies end: calls that repeat, calls too many, values without end; and the reply says so."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.chat_bodies import tool
from support.clients import sent
from support.family_replies import form_of, parsed, thought
from support.response_bodies import ADD, FILE, SUMS, events_of, made, responding
from support.scripted_app import SETTINGS, calls, chunks, running, scaffold_of, whole
from support.scripted_chat import TOOLS, F, G, cut, folded, says, told
from support.tool_app import metrics_of

from falsework.grammars.events import Arguments, Call, CallBegins, CallEnds
from falsework.grammars.output_parser import OutputParser
from falsework.prompts.dialects import DIALECTS, Dialect, with_reasoning
from falsework.server.engines import OutputDelta
from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.choice import ChoiceDelta, ChoiceProcessor
from falsework.server.generation.reply_limits import DEFAULT_LIMITS
from falsework.server.generation.turn import TurnBuilder

H = ("f", '{"a": "another"}')
RESPONSES_TOOLS = [{"type": "function", **one["function"]} for one in TOOLS]
PARALLEL = [one for one in DIALECTS.values() if one.markup.parallel]


def heard(dialect: Dialect, pieces: Sequence[str], *, half_calls: bool) -> list[ChoiceDelta]:
    """Return the deltas of a reply, up to its end."""
    reader = OutputParser(form_of(dialect))
    choice = ChoiceProcessor(reader, (), named=False, half_calls=half_calls, limits=DEFAULT_LIMITS)
    told = []
    for number, piece in enumerate(pieces, 1):
        whole = number == len(pieces)
        told.append(choice.process(OutputDelta(0, piece, 1, finish="stop" if whole else None)))
        if choice.finished:
            break
    return told


def made_calls(deltas: Sequence[ChoiceDelta]) -> list[Call]:
    events = [event for delta in deltas for event in delta.events]
    begun = [event for event in events if isinstance(event, CallBegins)]
    assert len([event for event in events if isinstance(event, CallEnds)]) == len(begun)
    return [
        Call(
            one.name,
            "".join(e.text for e in events if isinstance(e, Arguments) and e.index == one.index),
        )
        for one in begun
    ]


@pytest.mark.parametrize("half_calls", [False, True], ids=["whole", "as_decoded"])
@pytest.mark.parametrize(
    "dialect",
    [*PARALLEL, *(with_reasoning(one) for one in PARALLEL if one.reasoning)],
    ids=lambda one: one.name + ("-think" if one.think else ""),
)
def test_a_repeated_call_ends_the_reply_in_every_dialect(
    dialect: Dialect, half_calls: bool
) -> None:
    first = Call("get_weather", '{"city": "Paris"}')
    second = Call("get_weather", '{"city": "Par"}')
    said = [first, second, first, Call("get_weather", '{"city": "Rome"}')]
    text = thought(form_of(dialect)) + dialect.markup.render(said)

    for size in (1, 7, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        deltas = heard(dialect, pieces, half_calls=half_calls)

        assert parsed(made_calls(deltas)) == parsed([first, second])
        assert deltas[-1].finish == "tool_calls"
        assert deltas[-1].ended_by == "repeated_call"


def test_a_chat_says_why_it_ended_streamed_and_not(plain: TurnBuilder) -> None:
    text = calls(F, G, F, H)

    reply = whole(says(*cut(text, [9, 40, 90])), plain, tools=TOOLS)
    stream = chunks(says(*cut(text, [5, 70])), plain, tools=TOOLS)
    half = chunks(says(*text), plain, half_calls=True, tools=TOOLS)

    assert told(reply) == (None, None, [F, G], "tool_calls")
    assert folded(stream) == folded(half) == told(reply)
    assert reply["choices"][0]["stop_reason"] == "repeated_call"
    assert [c["choices"][0].get("stop_reason") for c in (stream[-1], half[-1], stream[0])] == [
        "repeated_call", "repeated_call", None]  # fmt: skip


def test_nothing_is_decoded_behind_a_repeated_call(plain: TurnBuilder) -> None:
    engine = says(*calls(F, F), *calls(F) * 20)

    reply = whole(engine, plain, tools=TOOLS)

    assert reply["usage"]["completion_tokens"] <= len(calls(F, F))
    assert engine.open == 0


@pytest.mark.parametrize("said", [F, G])
def test_one_call_is_no_repetition(plain: TurnBuilder, said: tuple[str, str]) -> None:
    reply = whole(says(calls(said)), plain, tools=TOOLS)

    assert told(reply) == (None, None, [said], "tool_calls")
    assert "stop_reason" not in reply["choices"][0]


def test_a_client_that_asks_for_parallel_calls_gets_calls_that_are_alike(
    plain: TurnBuilder,
) -> None:
    reply = whole(says(calls(F, F, F)), plain, tools=TOOLS, parallel_tool_calls=True)

    assert told(reply) == (None, None, [F, F, F], "tool_calls")


def test_a_setting_allows_calls_that_are_alike(plain: TurnBuilder) -> None:
    settings = SETTINGS.model_copy(update={"repeated_calls": "allow"})
    with running(says(calls(F, F)), plain, settings) as house:
        reply = sent(house, "POST", "/v1/chat/completions", chat()).json

    assert told(reply)[2] == [F, F]


def chat(**fields: object) -> dict[str, object]:
    message = {"role": "user", "content": "?"}
    return {"model": "smollm2", "messages": [message], "tools": TOOLS, **fields}


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_holds_no_more_calls_than_the_request_wants(
    plain: TurnBuilder, *, stream: bool
) -> None:
    said = says(*calls(*[("f", f'{{"a": "{n}"}}') for n in range(5)]))
    fields = {"tools": TOOLS, "max_parallel_calls": 3}

    if stream:
        sent_chunks = chunks(said, plain, **fields)
        reply, reason = folded(sent_chunks), sent_chunks[-1]["choices"][0]["stop_reason"]
    else:
        done = whole(said, plain, **fields)
        reply, reason = told(done), done["choices"][0]["stop_reason"]

    assert [arguments for _, arguments in reply[2]] == [f'{{"a": "{n}"}}' for n in range(3)]
    assert (reply[3], reason) == ("tool_calls", "max_parallel_calls")


def test_a_reply_of_exactly_the_limit_ended_by_itself(plain: TurnBuilder) -> None:
    reply = whole(says(calls(F, G)), plain, tools=TOOLS, max_parallel_calls=2)

    assert told(reply)[2:] == ([F, G], "tool_calls")
    assert "stop_reason" not in reply["choices"][0]


def test_by_default_a_reply_holds_sixteen_calls(plain: TurnBuilder) -> None:
    reply = whole(says(calls(*[("f", f'{{"a": "{n}"}}') for n in range(20)])), plain, tools=TOOLS)

    assert len(told(reply)[2]) == 16


@pytest.mark.parametrize(
    ("path", "fields"),
    [("chat/completions", chat()), ("responses", {"model": "smollm2", "input": "?"})],
)
def test_more_calls_than_the_server_allows_are_refused_by_name(
    plain: TurnBuilder, path: str, fields: dict[str, object]
) -> None:
    with running(says("Hi"), plain) as house:
        reply = sent(house, "POST", f"/v1/{path}", {**fields, "max_parallel_calls": 17})

    assert reply.status == 400
    assert reply.json["error"]["param"] == "max_parallel_calls"


def test_each_choice_has_limits_of_its_own(plain: TurnBuilder) -> None:
    engine = says(calls(F, F, H))
    engine.lines = (engine.lines[0], ScriptedReply([calls(F, H)]))

    reply = whole(engine, plain, tools=TOOLS, n=2)

    assert [told(reply, n)[2] for n in range(2)] == [[F], [F, H]]
    assert [one.get("stop_reason") for one in reply["choices"]] == ["repeated_call", None]


def test_a_response_warns_of_what_ended_it_streamed_and_not(plain: TurnBuilder) -> None:
    text = calls(F, F)
    with responding(plain, text, ScriptedReply(list(text))) as house:
        reply = made(house, tools=RESPONSES_TOOLS)
        events = events_of(house, tools=RESPONSES_TOOLS)

    streamed = events[-1].response
    assert [(item.name, item.arguments) for item in reply.output] == [F]
    assert [(item.name, item.arguments) for item in streamed.output] == [F]
    assert reply.status == streamed.status == "completed"
    assert [one["code"] for one in reply.warnings] == ["repeated_call"]
    assert streamed.warnings == reply.warnings


def test_a_server_tool_is_run_once_where_its_call_is_repeated(plain: TurnBuilder) -> None:
    counted = 'falsework_replies_ended_total{by="repeated_call"}'
    with responding(plain, f"{ADD}\n{ADD}", "It is 5.", file=FILE) as house:
        before = metrics_of(house).get(counted, 0.0)
        reply = made(house, tools=[SUMS])
        after = metrics_of(house)[counted]

    assert [item.type for item in reply.output] == ["mcp_list_tools", "mcp_call", "message"]
    assert (reply.output_text, reply.status) == ("It is 5.", "completed")
    assert [one["code"] for one in reply.warnings] == ["repeated_call"]
    assert after - before == 1


TEXT = tool("f", parameters={"type": "object", "properties": {"a": {"type": "string"}}})
ENDLESS = [calls(F).partition("x")[0], *itertools.repeat("la, ", 3000)]


def test_a_value_that_repeats_itself_without_end_is_cut_and_not_reported(
    plain: TurnBuilder,
) -> None:
    reply = whole(says(*ENDLESS, finish="length"), plain, tools=[TEXT])
    stream = chunks(says(*ENDLESS, finish="length"), plain, tools=[TEXT])

    assert told(reply)[2:] == ([], "length")
    assert reply["choices"][0]["stop_reason"] == "repetition"
    assert stream[-1]["choices"][0]["stop_reason"] == "repetition"
    assert folded(stream)[2:] == told(reply)[2:]
    assert reply["usage"]["completion_tokens"] < 1500


def test_an_answer_with_a_schema_that_repeats_itself_is_cut(plain: TurnBuilder) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "string"}}}

    reply = whole(says('"', *["0"] * 9000, finish="length"), plain, response_format=form)

    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["choices"][0]["stop_reason"] == "repetition"


def test_text_may_repeat_itself(plain: TurnBuilder) -> None:
    reply = whole(says(*["la, "] * 3000), plain, tools=[TEXT])

    assert told(reply)[3] == "stop"


def test_a_call_has_a_limit_of_tokens_unless_the_client_sets_one(smollm2: Path) -> None:
    builder = scaffold_of(smollm2, max_call_tokens=500)
    pieces = [calls(F).partition("x")[0], *(f"{n} " for n in range(3000))]

    cut_off = whole(says(*pieces, finish="length"), builder, tools=[TEXT])
    limited = whole(says(*pieces, finish="length"), builder, tools=[TEXT], max_tokens=1200)

    assert cut_off["choices"][0]["stop_reason"] == "max_call_tokens"
    assert cut_off["choices"][0]["finish_reason"] == "length"
    assert 500 <= cut_off["usage"]["completion_tokens"] < 520
    assert "stop_reason" not in limited["choices"][0]
