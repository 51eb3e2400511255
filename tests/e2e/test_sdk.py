"""The official OpenAI SDK, sync and async, against the running server: tools and streams."""

import json
from typing import Annotated, Any, Literal

import pytest
from openai import OpenAI
from pydantic import BaseModel, Field
from support.openai_sdk import CLOCK, LAMP, TOOLS, USER, WEATHER, Sdk, body, calls_of, check, fold
from support.server_process import Server

NAMED = {"type": "function", "function": {"name": "get_time"}}
ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {
        "mode": "required",
        "tools": [{"type": "function", "function": {"name": "switch_lamp"}}],
    },
}
RESULT = '{"degrees": 21, "sky": "clear"}'


@pytest.fixture(params=["sync", "async"])
def sdk(server: Server, request: pytest.FixtureRequest) -> Sdk:
    return Sdk(server.url, server.key, is_async=request.param == "async")


def test_the_served_model_is_listed(sdk: Sdk) -> None:
    async def listed(client: Any) -> list[str]:
        return [model.id async for model in client.models.list()]

    found = sdk.do(listed if sdk.is_async else lambda client: [m.id for m in client.models.list()])

    assert found == ["smollm2"]


def test_the_served_model_is_described(sdk: Sdk) -> None:
    model = sdk.do(lambda client: client.models.retrieve("smollm2"))

    assert (model.id, model.object, model.owned_by) == ("smollm2", "model", "falsework")


def test_a_chat_is_answered_with_text(sdk: Sdk) -> None:
    reply = sdk.asked(max_tokens=12)

    assert reply.choices[0].message.content
    assert reply.choices[0].message.tool_calls is None
    assert reply.model == "smollm2"


def test_the_tool_loop_goes_from_a_call_over_its_result_to_an_answer(sdk: Sdk) -> None:
    asked = sdk.asked(tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    (call,) = calls_of(asked)
    result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}

    answer = sdk.asked(
        messages=[USER, asked.choices[0].message, result], tools=TOOLS, tool_choice="none"
    )

    check(call.function.name, call.function.arguments)
    assert asked.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content
    assert calls_of(answer) == []


def test_the_tool_loop_works_streamed(sdk: Sdk) -> None:
    asked = fold(sdk.told(tools=TOOLS, tool_choice="required", parallel_tool_calls=False))
    ((name, arguments),) = asked.calls
    past = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": RESULT}

    answer = fold(
        sdk.told(
            messages=[USER, {"role": "assistant", "tool_calls": [past]}, result],
            tools=TOOLS,
            tool_choice="none",
        )
    )

    check(name, arguments)
    assert asked.finish == "tool_calls"
    assert answer.text
    assert answer.calls == []


@pytest.mark.parametrize("choice", ["none", "auto", "required", NAMED, ALLOWED], ids=str)
def test_a_stream_tells_what_the_same_request_tells_unstreamed(sdk: Sdk, choice: object) -> None:
    fields = {"tools": TOOLS, "tool_choice": choice, "temperature": 1.0, "seed": 11}

    whole, streamed = sdk.asked(**fields), fold(sdk.told(**fields))

    calls = [[call.function.name, call.function.arguments] for call in calls_of(whole)]
    assert streamed.calls == calls
    assert streamed.text == (whole.choices[0].message.content or "")
    assert streamed.finish == whole.choices[0].finish_reason


def test_none_gives_text_though_tools_are_offered(sdk: Sdk) -> None:
    reply = sdk.asked(tools=TOOLS, tool_choice="none", max_tokens=16)

    assert calls_of(reply) == []
    assert reply.choices[0].message.content


@pytest.mark.parametrize("seed", range(4))
def test_auto_gives_text_or_valid_calls(sdk: Sdk, seed: int) -> None:
    reply = sdk.asked(tools=TOOLS, temperature=1.3, seed=seed)

    for call in calls_of(reply):
        check(call.function.name, call.function.arguments)
    assert reply.choices[0].message.content or calls_of(reply)


@pytest.mark.parametrize("seed", range(4))
def test_required_gives_valid_calls_though_no_tool_is_strict(sdk: Sdk, seed: int) -> None:
    reply = sdk.asked(tools=TOOLS, tool_choice="required", temperature=1.3, seed=seed)

    assert calls_of(reply)
    for call in calls_of(reply):
        check(call.function.name, call.function.arguments)


def test_a_named_function_is_called_once_and_ends_the_reply(sdk: Sdk) -> None:
    reply = sdk.asked(tools=TOOLS, tool_choice=NAMED)

    (call,) = calls_of(reply)
    check("get_time", call.function.arguments)
    assert call.function.name == "get_time"
    assert reply.choices[0].finish_reason == "stop"


def test_only_an_allowed_tool_is_called(sdk: Sdk) -> None:
    reply = sdk.asked(tools=TOOLS, tool_choice=ALLOWED, parallel_tool_calls=False)

    (call,) = calls_of(reply)
    assert call.function.name == "switch_lamp"
    assert json.loads(call.function.arguments)["on"] in {True, False}


def test_parallel_calls_have_an_id_each_and_are_all_valid(sdk: Sdk) -> None:
    """The model may not end its turn, so it calls until its tokens are spent."""
    no_end = {"2": -100}

    reply = sdk.asked(
        tools=[LAMP, CLOCK], tool_choice="required", logit_bias=no_end, parallel_tool_calls=True
    )

    calls = calls_of(reply)
    assert len(calls) >= 2
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        check(call.function.name, call.function.arguments)
    assert reply.choices[0].finish_reason == "length"


def test_without_parallel_calls_there_is_one(sdk: Sdk) -> None:
    reply = sdk.asked(
        tools=[LAMP, CLOCK],
        tool_choice="required",
        parallel_tool_calls=False,
        n=4,
        temperature=1.5,
        seed=3,
    )

    assert [len(calls_of(reply, index)) for index in range(4)] == [1] * 4


def test_a_tool_without_parameters_is_called_without_arguments(sdk: Sdk) -> None:
    bare = {"type": "function", "function": {"name": "ring_bell"}}

    reply = sdk.asked(tools=[bare], tool_choice="required", parallel_tool_calls=False)

    (call,) = calls_of(reply)
    assert (call.function.name, call.function.arguments) == ("ring_bell", "{}")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_call_cut_by_the_token_limit_is_not_reported_as_a_call(sdk: Sdk, streamed: bool) -> None:
    fields = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 6}

    if streamed:
        reply = fold(sdk.told(**fields))
        calls, text, finish = reply.calls, reply.text, reply.finish
    else:
        choice = sdk.asked(**fields).choices[0]
        calls, text, finish = (
            choice.message.tool_calls,
            choice.message.content,
            choice.finish_reason,
        )

    assert not calls
    assert not text
    assert finish == "length"


class Guest(BaseModel):
    """Who comes."""

    kind: Literal["child", "grown-up"]


class Booking(BaseModel):
    """What the model should fill in."""

    table: Literal["window", "garden"]
    smoking: bool
    dishes: Annotated[list[Literal["soup", "fish", "cake"]], Field(max_length=2)]
    guest: Guest | None


def test_parse_returns_a_pydantic_object(sdk: Sdk) -> None:
    reply = sdk.do(
        lambda client: client.chat.completions.parse(
            model="smollm2",
            messages=[{"role": "user", "content": "Book a garden table, soup and cake."}],
            response_format=Booking,
            temperature=0,
            max_tokens=100,
        )
    )

    assert isinstance(reply.choices[0].message.parsed, Booking)


def test_a_json_schema_holds_without_strict(sdk: Sdk) -> None:
    schema = {
        "type": "object",
        "properties": {"sky": {"enum": ["clear", "grey"]}, "windy": {"type": "boolean"}},
        "required": ["sky", "windy"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema}}

    reply = sdk.asked(response_format=form, temperature=1.5, seed=1)

    said = json.loads(reply.choices[0].message.content or "")
    assert said["sky"] in {"clear", "grey"}
    assert said["windy"] in {True, False}
    assert reply.choices[0].finish_reason == "stop"


def test_json_object_begins_an_object(sdk: Sdk) -> None:
    reply = sdk.asked(response_format={"type": "json_object"}, max_tokens=24)

    assert (reply.choices[0].message.content or "").startswith("{")


def test_the_sdks_stream_helper_ends_with_the_whole_reply(server: Server) -> None:
    fields = body(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)

    with (
        OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client,
        client.chat.completions.stream(**fields) as stream,
    ):
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()

    (call,) = final.choices[0].message.tool_calls or []
    assert [event.name for event in done] == ["get_weather"]
    check(call.function.name, call.function.arguments)
