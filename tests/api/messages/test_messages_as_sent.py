"""Bodies of /v1/messages as client programs send them, and what is refused, in Anthropic's form."""

from typing import Any

import anthropic
import pytest
from support.anthropic_sdk import HELLO, PARIS, WEATHER, answering, made, prompt_of
from support.chat_bodies import Json
from support.clients import sent
from support.scripted_app import SETTINGS, calls, running
from support.scripted_chat import says

from falsework.server.generation.turn import TurnBuilder

USE: Json = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}}
IMAGE: Json = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
}


def test_an_agents_request_is_answered(plain: TurnBuilder) -> None:
    """The fields that agent programs send beside the protocol's own change nothing."""
    body = {
        "model": "smollm2",
        "max_tokens": 32000,
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<system-reminder>\nToday is Monday.\n</system-reminder>"},
                {"type": "text", "text": "List the files.", "cache_control": {"type": "ephemeral"}},
            ]},
            {"role": "system", "content": "Agents that you can start: none."},
        ],
        "system": [{"type": "text", "text": "You are an agent.",
                    "cache_control": {"type": "ephemeral"}}],
        "tools": [WEATHER],
        "metadata": {"user_id": "x" * 700},
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": True,
    }  # fmt: skip
    headers = {"anthropic_version": "2023-06-01", "anthropic_beta": "a-2025-01-01,b-2026-01-01"}
    engine = says(calls(PARIS))

    with running(engine, plain, SETTINGS) as house:
        reply = sent(house, "POST", "/v1/messages?beta=true", body, **headers)

    assert reply.status == 200
    assert '"stop_reason":"tool_use"' in reply.text
    assert "max_tokens_reduced" in reply.headers["warning"]
    prompt = prompt_of(engine, plain)
    assert prompt.index("List the files.") < prompt.index("Agents that you can start")


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("18 degrees", "18 degrees"),
        ([{"type": "text", "text": "18"}, {"type": "text", "text": "degrees"}], "18\ndegrees"),
        ([IMAGE], "[image/png of 1 kB left out: this model reads text alone]"),
        ([{"type": "tool_reference", "tool_name": "get_wind"}], "get_wind"),
        (None, ""),
    ],
)
@pytest.mark.parametrize("is_error", [False, True])
def test_every_form_of_a_result_is_shown(
    plain: TurnBuilder, content: Any, shown: str, is_error: bool
) -> None:
    engine = says("Sunny.")
    result = {
        "type": "tool_result", "tool_use_id": "t1", "content": content, "is_error": is_error
    }  # fmt: skip
    history = [
        HELLO,
        {"role": "assistant", "content": [USE]},
        {"role": "user", "content": [result]},
    ]

    made(plain, engine, messages=history, tools=[WEATHER])

    assert ("Error: " + shown if is_error else shown) in prompt_of(engine, plain)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
    ],
)
def test_a_tool_that_the_client_runs_is_offered_with_the_schema_of_its_type(
    plain: TurnBuilder, tool: Json
) -> None:
    engine = says("Done.")

    made(plain, engine, tools=[tool])

    assert f'"name": "{tool["name"]}"' in prompt_of(engine, plain)


@pytest.mark.parametrize(
    "kind", ["web_search_20250305", "code_execution_20250825", "computer_20250124", "holo_20990101"]
)
def test_a_tool_that_others_run_is_left_out_and_named(plain: TurnBuilder, kind: str) -> None:
    with answering(plain, says("Sunny.")) as (_, house):
        body: Json = {
            "model": "smollm2", "max_tokens": 9, "messages": [HELLO],
            "tools": [WEATHER, {"type": kind, "name": "x"}],
        }  # fmt: skip
        reply = sent(house, "POST", "/v1/messages", body)
        needed = sent(
            house, "POST", "/v1/messages",
            {**body, "tools": body["tools"][1:], "tool_choice": {"type": "any"}},
        )  # fmt: skip

    assert reply.status == 200
    assert kind in reply.headers["warning"]
    assert reply.json["warnings"][0]["param"] == "tools[1].type"
    assert needed.status == 400
    assert kind in needed.json["error"]["message"]


def history_of(*messages: Json) -> Json:
    return {"messages": list(messages)}


@pytest.mark.parametrize(
    ("fields", "status", "kind", "param"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        ({"model": "claude"}, 404, "not_found_error", "model"),
        ({"tools": [{"name": "f"}]}, 400, "invalid_request_error", "tools[0].input_schema"),
        ({"tools": [{**WEATHER, "name": "a b"}]}, 400, "invalid_request_error", "tools[0].name"),
        (
            {"tools": [{**WEATHER, "input_schema": {"type": "objekt"}}]},
            400, "invalid_request_error", "tools[0].input_schema",
        ),
        ({"tool_choice": {"type": "any"}}, 400, "invalid_request_error", "tool_choice"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "g"}},
            400, "invalid_request_error", "tool_choice.name",
        ),
        ({"thinking": {"type": "deep"}}, 400, "invalid_request_error", "thinking.type"),
        ({"temperature": 3}, 400, "invalid_request_error", "temperature"),
        (
            history_of(HELLO, {"role": "assistant", "content": "It is"}),
            400, "invalid_request_error", "messages.[1].role",
        ),
        (
            history_of({"role": "user", "content": [IMAGE]}),
            400, "invalid_request_error", "messages.[0].content[0].type",
        ),
        (
            history_of(HELLO, {"role": "assistant", "content": [USE]}, HELLO),
            400, "invalid_request_error", "messages",
        ),
        (
            history_of({"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t9", "content": "x"}]}),
            400, "invalid_request_error", "messages.[0].content",
        ),
        (history_of({"role": "user", "content": "word " * 5000}), 400, "invalid_request_error",
         "messages"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_refused_in_anthropics_form(  # noqa: PLR0913 - a table's columns
    plain: TurnBuilder, fields: Json, status: int, kind: str, param: str, stream: bool
) -> None:
    body = {"model": "smollm2", "max_tokens": 9, "messages": [HELLO], "stream": stream, **fields}
    with running(says("x"), plain, SETTINGS) as house:
        reply = sent(house, "POST", "/v1/messages", body)

    assert (reply.status, reply.json["type"]) == (status, "error")
    assert (reply.json["error"]["type"], reply.json["error"]["param"]) == (kind, param)


def test_an_image_of_an_earlier_question_does_not_end_the_session(plain: TurnBuilder) -> None:
    engine = says("Yes.")
    history = [
        {"role": "user", "content": [IMAGE, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": "I can't see it."},
        {"role": "user", "content": "Never mind."},
    ]

    made(plain, engine, messages=history)

    assert "[image/png of 1 kB left out: this model reads text alone]" in prompt_of(engine, plain)


@pytest.mark.parametrize("header", ["x_api_key", "authorization"])
def test_the_key_may_come_in_either_header(plain: TurnBuilder, header: str) -> None:
    settings = SETTINGS.model_copy(update={"api_key": ("secret",)})
    body = {"model": "smollm2", "max_tokens": 9, "messages": [HELLO]}
    right = "secret" if header == "x_api_key" else "Bearer secret"
    with running(says("x"), plain, settings) as house:
        accepted = sent(house, "POST", "/v1/messages", body, **{header: right})
        refused = sent(house, "POST", "/v1/messages", body, **{header: right + "x"})

    assert accepted.status == 200
    assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")


def test_a_failure_in_mid_stream_is_an_error_event(plain: TurnBuilder) -> None:
    with answering(plain, says("It is", finish="error")) as (sdk, _):
        stream = sdk.messages.create(
            model="smollm2",
            max_tokens=9,
            messages=[HELLO],  # type: ignore[list-item]
            stream=True,
        )
        with pytest.raises(anthropic.APIStatusError, match="engine failed"):
            list(stream)


def test_half_a_call_in_a_stream_has_no_input(plain: TurnBuilder) -> None:
    settings = SETTINGS.model_copy(update={"stream_calls": "as_decoded"})
    half = calls(PARIS)[:-25]
    with answering(plain, says(half, finish="length"), settings) as (sdk, _):
        with sdk.messages.stream(
            model="smollm2",
            max_tokens=9,
            messages=[HELLO],  # type: ignore[list-item]
            tools=[WEATHER],  # type: ignore[list-item]
        ) as stream:
            kinds = [event.type for event in stream if event.type.startswith("message")]

    assert kinds == ["message_start", "message_delta", "message_stop"]
