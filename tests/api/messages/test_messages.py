"""POST /v1/messages as the official SDK uses it: text, thoughts, tools, results, streams."""

import json
from typing import Any

import anthropic
import pytest
from support.anthropic_sdk import (
    HELLO,
    PARIS,
    WEATHER,
    answering,
    events_of,
    made,
    prompt_of,
)
from support.chat_bodies import Json
from support.clients import sent
from support.scripted_app import SETTINGS, calls
from support.scripted_chat import says

from falsework.server.api.messages.request import to_generation_request
from falsework.server.api.messages.schema import parse
from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.request import GenerationRequest
from falsework.server.generation.turn import TurnBuilder


def generation_of(body: Json) -> GenerationRequest:
    return to_generation_request(parse(json.dumps(body).encode()), SETTINGS)


def test_text_is_answered_with_text(plain: TurnBuilder) -> None:
    engine = says("It is", " sunny.")

    message = made(plain, engine, system=[{"type": "text", "text": "Be brief."}])

    assert [(block.type, block.text) for block in message.content] == [("text", "It is sunny.")]  # type: ignore[union-attr]
    assert (message.role, message.stop_reason, message.stop_sequence) == (
        "assistant", "end_turn", None)  # fmt: skip
    assert message.usage.output_tokens == 3
    assert message.usage.input_tokens == len(engine.asked[0][0])
    prompt = prompt_of(engine, plain)
    assert prompt.index("Be brief.") < prompt.index("weather in Paris")


@pytest.mark.parametrize("choice", ["auto", "any", "tool"])
def test_a_tool_is_used_and_its_result_answered(plain: TurnBuilder, choice: str) -> None:
    engine = ScriptedEngine(turns=[ScriptedReply([calls(PARIS)]), ScriptedReply(["Sunny."])])
    named = {"name": "get_weather"} if choice == "tool" else {}
    with answering(plain, engine) as (sdk, _):
        asked: Any = {"model": "smollm2", "max_tokens": 100, "tools": [WEATHER]}
        first = sdk.messages.create(
            **asked, messages=[HELLO], tool_choice={"type": choice, **named}
        )
        (use,) = first.content
        assert isinstance(use, anthropic.types.ToolUseBlock)
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "18 degrees"}
        history = [
            HELLO,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result, {"type": "text", "text": "In a word?"}]},
        ]
        second = sdk.messages.create(**asked, messages=history)

    assert (first.stop_reason, use.name, use.input) == ("tool_use", *PARIS[:1], {"city": "Paris"})
    assert second.content[0].text == "Sunny."  # type: ignore[union-attr]
    prompt = prompt_of(engine, plain, 1)
    assert prompt.index('"Paris"') < prompt.index("18 degrees") < prompt.index("In a word?")


def test_parallel_calls_are_blocks_one_after_the_other(plain: TurnBuilder) -> None:
    said = calls(PARIS, ("get_weather", '{"city": "Rome"}'))

    message = made(plain, says("Let me look.\n", said), tools=[WEATHER])

    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    assert [block.input["city"] for block in message.content[1:]] == ["Paris", "Rome"]  # type: ignore[union-attr,index]
    assert len({block.id for block in message.content[1:]}) == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("choice", "mode", "parallel"),
    [
        (None, "auto", True),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any"}, "required", True),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "get_weather"}, "required", False),
        ({"type": "none"}, "none", True),
    ],
)
def test_tool_choice_is_what_the_reply_may_hold(
    choice: Json | None, mode: str, parallel: bool
) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [HELLO], "tools": [WEATHER]}

    asked = generation_of({**body, "tool_choice": choice})

    assert (asked.choice.mode, asked.choice.parallel) == (mode, parallel)


def test_no_tool_is_shown_where_none_may_be_used(plain: TurnBuilder) -> None:
    engine = says("Sunny.")

    made(plain, engine, tools=[WEATHER], tool_choice={"type": "none"})

    assert "get_weather" not in prompt_of(engine, plain)


@pytest.mark.parametrize(
    ("engine", "fields", "ending"),
    [
        (says("One two", finish="length"), {}, ("max_tokens", None)),
        (says("One STOP two"), {"stop_sequences": ["END", "STOP"]}, ("stop_sequence", "STOP")),
        (says(calls(PARIS)), {"tools": [WEATHER]}, ("tool_use", None)),
        (says("One"), {"stop_sequences": ["STOP"]}, ("end_turn", None)),
    ],
)
def test_a_message_says_why_it_ended(
    plain: TurnBuilder, engine: ScriptedEngine, fields: Json, ending: tuple[str, str | None]
) -> None:
    message = made(plain, engine, **fields)

    assert (message.stop_reason, message.stop_sequence) == ending


def test_the_events_of_a_stream_have_anthropics_order(plain: TurnBuilder) -> None:
    events = events_of(plain, says("Let me look.\n", calls(PARIS)), tools=[WEATHER])

    kinds = [event.type for event in events]
    assert kinds == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
        "message_delta",
        "message_stop",
    ]
    assert events[0].message.content == []
    assert events[0].message.stop_reason is None
    assert events[0].message.usage.input_tokens > 0
    text, _, _, use, arguments = events[1:6][0], *events[2:4], *events[4:6]
    assert (text.index, text.content_block.text) == (0, "")
    assert (use.index, use.content_block.name, use.content_block.input) == (1, "get_weather", {})
    assert arguments.delta.partial_json == PARIS[1]
    assert events[-2].delta.stop_reason == "tool_use"
    assert events[-2].usage.output_tokens > 0


def test_a_stream_and_a_whole_message_say_the_same(plain: TurnBuilder) -> None:
    said = ["Let me", " look.\n", calls(PARIS, PARIS)]
    whole = made(plain, says(*said), tools=[WEATHER])
    with answering(plain, says(*said)) as (sdk, _):
        with sdk.messages.stream(
            model="smollm2",
            max_tokens=100,
            messages=[HELLO],  # type: ignore[list-item]
            tools=[WEATHER],  # type: ignore[list-item]
        ) as stream:
            streamed = stream.get_final_message()

    def shown(message: Any) -> Any:
        blocks = [block.model_dump(exclude={"id"}, exclude_none=True) for block in message.content]
        return blocks, message.stop_reason, message.usage.output_tokens

    def kept(blocks: Any) -> Any:
        return [{key: one[key] for key in ("type", "text", "name", "input") if key in one}
                for one in blocks]  # fmt: skip

    (streamed_blocks, *streamed_end), (whole_blocks, *whole_end) = shown(streamed), shown(whole)
    assert kept(streamed_blocks) == kept(whole_blocks)
    assert streamed_end == whole_end


def test_a_ping_follows_the_start_and_no_done_the_end(plain: TurnBuilder) -> None:
    with answering(plain, says("Hello.")) as (_, house):
        body = {"model": "smollm2", "max_tokens": 9, "messages": [HELLO], "stream": True}
        text = sent(house, "POST", "/v1/messages?beta=true", body).text

    assert "event: ping" in text
    assert text.index("event: message_start") < text.index("event: ping")
    assert "[DONE]" not in text
    assert text.rstrip().endswith('data: {"type":"message_stop"}')


def test_thoughts_are_blocks_that_come_back(thinker: TurnBuilder) -> None:
    engine = says("<think>\nIt is June.\n</think>\n\n", "Sunny.")

    first = made(thinker, engine, thinking={"type": "enabled", "budget_tokens": 1024})

    thought, text = first.content
    assert isinstance(thought, anthropic.types.ThinkingBlock)
    assert thought.thinking.strip() == "It is June."
    assert text.text == "Sunny."  # type: ignore[union-attr]
    assert thought.signature


@pytest.mark.parametrize(
    ("thinking", "effort", "tokens"),
    [
        (None, "high", 0),
        ({"type": "disabled"}, None, 0),
        ({"type": "enabled", "budget_tokens": 2048}, None, 2048),
        ({"type": "adaptive"}, None, None),
        ({"type": "adaptive"}, "high", 4096),
    ],
)
def test_as_much_is_thought_as_is_asked_for(
    thinking: Json | None, effort: str | None, tokens: int | None
) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [HELLO], "thinking": thinking}

    asked = generation_of({**body, "output_config": {"effort": effort}})

    assert asked.think_budget == tokens


def test_a_hidden_thought_has_a_signature_that_restores_it(thinker: TurnBuilder) -> None:
    engine = says("<think>\nIt is June.\n</think>\n\n", calls(PARIS))

    first = made(
        thinker, engine, tools=[WEATHER], thinking={"type": "adaptive", "display": "omitted"}
    )
    blocks = [block.model_dump(exclude_none=True) for block in first.content]
    result = {"type": "tool_result", "tool_use_id": blocks[1]["id"], "content": "18"}
    history = [
        HELLO,
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": [result]},
    ]
    following = generation_of({"model": "m", "max_tokens": 9, "messages": history})

    assert blocks[0]["thinking"] == ""
    assert following.messages[1].reasoning.strip() == "It is June."


def test_a_schema_for_the_text_is_enforced(plain: TurnBuilder) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    engine = says('{"a": 1}')

    message = made(
        plain, engine, output_config={"format": {"type": "json_schema", "schema": schema}}
    )

    assert message.content[0].text == '{"a": 1}'  # type: ignore[union-attr]
    assert engine.asked[0][2] is not None


def test_tokens_are_counted_as_the_reply_counts_them(plain: TurnBuilder) -> None:
    asked: Any = {"model": "smollm2", "messages": [HELLO], "tools": [WEATHER], "system": "Be kind."}
    with answering(plain, says("Sunny.")) as (sdk, _):
        counted = sdk.messages.count_tokens(**asked)
        message = sdk.messages.create(**asked, max_tokens=10)

    assert counted.input_tokens == message.usage.input_tokens


def test_cached_tokens_are_told_apart(plain: TurnBuilder) -> None:
    engine = ScriptedEngine(ScriptedReply(["Sunny."]), cached_tokens=5)

    usage = made(plain, engine).usage

    assert usage.cache_read_input_tokens == 5
    assert usage.input_tokens + 5 == len(engine.asked[0][0])
