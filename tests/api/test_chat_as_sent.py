"""Chat requests as clients of other servers, and of other years, write them."""

from typing import Any

import pytest
from support.chat_bodies import USER, Json, asked, refusal, tool
from support.clients import CHAT, HELLO, sent
from support.scripted_app import SETTINGS, calls, chunks, running, whole
from support.scripted_chat import F, says

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder

A: Json = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
OLD: Json = {"functions": [{"name": "f", "parameters": A}, {"name": "g"}]}


@pytest.mark.parametrize(
    "kind",
    [
        "web_search",
        "web_search_preview",
        "image_generation",
        "file_search",
        "code_interpreter",
        "computer_use_preview",
        "tool_search",
        "holo_deck",
    ],
)
def test_a_tool_that_others_run_is_left_out_and_named(plain: TurnBuilder, kind: str) -> None:
    body = {**HELLO, "tools": [{"type": kind}, tool("f", parameters=A)]}
    with running(says("Hello."), plain, SETTINGS) as house:
        reply = sent(house, "POST", CHAT, body)
        streamed = sent(house, "POST", CHAT, {**body, "stream": True})
        needed = sent(
            house, "POST", CHAT, {**body, "tools": body["tools"][:1], "tool_choice": "required"}
        )
        counted = sent(house, "GET", "/metrics").text

    assert reply.status == 200
    assert reply.json["warnings"] == [
        {
            "code": "tool_left_out",
            "message": f"This server can't run tools of type '{kind}': tools[0] is left out.",
            "param": "tools[0].type",
        }
    ]
    for one in (reply, streamed):
        assert one.headers["warning"].startswith('299 falsework "tool_left_out: ')
        assert kind in one.headers["warning"]
    assert '"warnings"' in streamed.text
    assert (needed.status, needed.error["param"]) == (400, "tool_choice")
    assert kind in needed.error["message"]
    assert 'falsework_request_warnings_total{code="tool_left_out"}' in counted


def test_a_web_search_that_nobody_does_is_told(plain: TurnBuilder) -> None:
    with running(says("Hello."), plain, SETTINGS) as house:
        reply = sent(house, "POST", CHAT, {**HELLO, "web_search_options": {}})

    assert reply.status == 200
    assert reply.json["warnings"][0]["param"] == "web_search_options"


def test_usage_never_has_more_cached_tokens_than_prompt_tokens(plain: TurnBuilder) -> None:
    engine = ScriptedEngine(ScriptedReply([calls(F)]), cached_tokens=100_000)

    usage = whole(engine, plain, tools=[tool("f", parameters=A)], tool_choice="required")["usage"]

    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_minus_one_is_none(name: str) -> None:
    assert asked(**{name: -1}) == asked()


def test_more_tokens_than_are_left_are_as_many_as_are_left(plain: TurnBuilder) -> None:
    engine = says("Hello.")

    reply = whole(engine, plain, max_tokens=32000)

    (prompt, sampling, _) = engine.asked[0]
    assert len(prompt) + sampling.max_tokens == 4096
    assert reply["choices"][0]["message"]["content"] == "Hello."


def test_what_a_limit_was_reduced_to_is_told(plain: TurnBuilder) -> None:
    with running(says("Hello."), plain, SETTINGS) as house:
        reply = sent(house, "POST", CHAT, {**HELLO, "max_tokens": 32000})

    assert reply.json["warnings"][0]["code"] == "max_tokens_reduced"
    assert "4096" in reply.headers["warning"]


def test_a_top_p_of_zero_is_the_likeliest_token() -> None:
    assert 0 < asked(top_p=0).sampling.top_p < 0.001


@pytest.mark.parametrize(
    ("fields", "schema"),
    [
        ({"json_schema": A}, A),
        ({"format": A}, A),
        ({"format": "json"}, True),
        ({"response_format": {"type": "json_object", "schema": A}}, A),
        ({"response_format": {"type": "json_object", "value": A}}, A),
        ({"response_format": {"type": "json_object"}}, True),
    ],
)
def test_a_schema_is_enforced_wherever_a_server_takes_it(fields: Json, schema: Any) -> None:
    assert asked(**fields).response_schema == schema


def test_a_regex_at_the_top_level_is_enforced() -> None:
    grammar = asked(regex="[a-z]+").text_grammar

    assert grammar is not None
    assert (grammar.syntax, grammar.texts) == ("regex", ("[a-z]+",))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"grammar": 'root ::= "x"'}, "grammar"),
        ({"ebnf": 'root ::= "x"'}, "ebnf"),
        ({"format": "xml"}, "format"),
        ({"n_predict": 5}, "n_predict"),
        ({"options": {"num_predict": 5}}, "options"),
        ({"extra_body": {"guided_json": A}}, "extra_body"),
        ({"json_schema": A, "guided_json": A}, "json_schema"),
        ({"json_schema": A, "response_format": {"type": "json_object"}}, "json_schema"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(fields: Json, param: str) -> None:
    assert refusal(**fields).param == param


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"enable_thinking": False}, 0),
        ({"enable_thinking": True}, None),
        ({"thinking": {"type": "disabled"}}, 0),
        ({"thinking": {"type": "enabled"}}, None),
        ({"reasoning": {"effort": "none"}}, 0),
        ({"reasoning": {"effort": "high"}}, 4096),
        ({"reasoning": {"enabled": False}}, 0),
        ({"reasoning": {"max_tokens": 300}}, 300),
        ({"enable_thinking": True, "thinking_budget": 300}, 300),
    ],
)
def test_every_spelling_of_thinking_is_understood(fields: Json, tokens: int | None) -> None:
    assert asked(**fields).think_budget == tokens


def test_spellings_of_thinking_that_differ_are_refused() -> None:
    assert refusal(enable_thinking=False, reasoning_effort="high").param == "enable_thinking"


def test_thinking_is_off_already_where_a_template_has_no_switch(plain: TurnBuilder) -> None:
    reply = whole(says("Hello."), plain, chat_template_kwargs={"enable_thinking": False})

    assert reply["choices"][0]["message"]["content"] == "Hello."


def test_a_function_of_old_is_called_the_old_way(plain: TurnBuilder) -> None:
    (choice,) = whole(says(calls(F)), plain, **OLD)["choices"]

    assert choice["message"]["function_call"] == {"name": F[0], "arguments": F[1]}
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "function_call"


def test_a_function_of_old_streams_the_old_way(plain: TurnBuilder) -> None:
    stream = chunks(says(calls(F)), plain, **OLD)

    deltas = [chunk["choices"][0]["delta"].get("function_call") for chunk in stream]
    said = [delta for delta in deltas if delta]
    assert said[0] == {"name": F[0], "arguments": ""}
    assert "".join(delta["arguments"] for delta in said) == F[1]
    assert stream[-1]["choices"][0]["finish_reason"] == "function_call"


@pytest.mark.parametrize(
    ("choice", "mode", "only"),
    [
        (None, "auto", None),
        ("auto", "auto", None),
        ("none", "none", None),
        ({"name": "f"}, "required", {"f"}),
    ],
)
def test_function_call_is_a_choice_of_tools(choice: Any, mode: str, only: set[str] | None) -> None:
    chosen = asked(**OLD, function_call=choice).choice

    assert (chosen.mode, chosen.only, chosen.parallel) == (mode, only, False)


def test_calls_of_old_are_history() -> None:
    call = {"name": "f", "arguments": '{"a": "x"}'}
    history = [
        USER,
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "f", "content": "42"},
    ]

    messages = asked(messages=history, **OLD).messages

    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert messages[1].calls[0].arguments == call["arguments"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({**OLD, "tools": [tool()]}, "functions"),
        ({"functions": [{"name": "a b"}]}, "functions[0].name"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({**OLD, "function_call": {"name": "h"}}, "tool_choice"),
    ],
)
def test_functions_that_are_wrong_are_refused(fields: Json, param: str) -> None:
    assert refusal(**fields).param == param


@pytest.mark.parametrize("pieces", [["<"], ["<tool", "_ca"], ["<tool_call>"]])
def test_a_mark_that_the_limit_cuts_off_is_no_content(
    plain: TurnBuilder, pieces: list[str]
) -> None:
    tools = [tool("f", parameters=A), tool("g")]

    reply = whole(says(*pieces, finish="length"), plain, tools=tools, tool_choice="required")

    (choice,) = reply["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
