"""POST /v1/responses: the official SDK, a scripted model."""

import itertools
from pathlib import Path

import openai
import pytest
from support.chat_bodies import Json
from support.clients import client, sent
from support.response_bodies import F, events_of, made, responding
from support.scripted_app import calls, scaffold_of

from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.turn import TurnBuilder


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


def test_text_is_answered(scaffold: TurnBuilder) -> None:
    with responding(scaffold, "Hello!") as house:
        reply = made(house, instructions="Be brief.", metadata={"a": "b"})

    assert (reply.output_text, reply.status, reply.error) == ("Hello!", "completed", None)
    assert (reply.instructions, reply.metadata) == ("Be brief.", {"a": "b"})
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens


def test_every_field_that_clients_look_for_is_there(scaffold: TurnBuilder) -> None:
    with responding(scaffold, "Hello!") as house:
        reply = sent(
            house, "POST", "/v1/responses", {"model": "smollm2", "input": "?", "tools": [F]}
        )

    wanted = {
        "id", "object", "created_at", "completed_at", "status", "error", "incomplete_details",
        "instructions", "model", "output", "usage", "parallel_tool_calls", "previous_response_id",
        "reasoning", "store", "background", "service_tier", "temperature", "top_p",
        "presence_penalty", "frequency_penalty", "top_logprobs", "text", "tool_choice", "tools",
        "truncation", "max_output_tokens", "max_tool_calls", "user", "metadata",
        "safety_identifier", "prompt_cache_key",
    }  # fmt: skip
    assert wanted <= set(reply.json)
    assert set(reply.json["tools"][0]) >= {"description", "parameters", "strict"}


def test_a_text_streams_in_openais_order(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ScriptedReply(["Hel", "lo"])) as house:
        events = events_of(house)

    kinds = [kind for kind, _ in itertools.groupby(event.type for event in events)]
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added", "response.output_text.delta", "response.output_text.done",
        "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "Hello"
    assert events[0].response.output == []


def test_a_clients_function_is_called_and_its_output_taken(scaffold: TurnBuilder) -> None:
    with responding(scaffold, calls(("f", '{"a": 1}')), "It is 2.") as house:
        first = made(house, tools=[F])
        (call,) = first.output
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "2"}
        second = made(house, tools=[F], previous_response_id=first.id, input=[output])

    assert (call.type, call.name, call.arguments, call.status) == (
        "function_call", "f", '{"a": 1}', "completed")  # fmt: skip
    assert second.output_text == "It is 2."


def test_a_function_call_streams_as_the_sdk_expects(scaffold: TurnBuilder) -> None:
    with responding(scaffold, calls(("f", '{"a": 1}'))) as house, client(house) as sdk:
        with sdk.responses.stream(model="smollm2", input="?", tools=[F]) as stream:  # type: ignore[list-item]
            kinds = [event.type for event in stream]
            final = stream.get_final_response()

    assert "response.function_call_arguments.done" in kinds
    assert final.output[0].type == "function_call"


def test_a_conversation_may_be_replayed_by_the_client(scaffold: TurnBuilder) -> None:
    with responding(scaffold, calls(("f", '{"a": 1}')), "Done.") as house:
        first = made(house, tools=[F], store=False)
        items = [
            {"role": "user", "content": "Hello?"},
            *[item.model_dump() for item in first.output],
            {"type": "function_call_output", "call_id": first.output[0].call_id,
             "output": [{"type": "input_text", "text": "2"}]},
        ]  # fmt: skip
        second = made(house, tools=[F], input=items)

    assert second.output_text == "Done."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]},
            "input",
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]},
            "input[0].call_id",
        ),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "holo_call"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": []}, "input"),
        ({"tools": [{"type": "function", "name": "f g"}]}, "tools[0].name"),
        ({"tools": [{**F, "parameters": {"type": "objekt"}}]}, "tools[0].parameters"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [F, {"type": "web_search"}], "tool_choice": {"type": "web_search"}},
            "tool_choice",
        ),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        (
            {
                "text": {
                    "format": {
                        "type": "json_schema",
                        "name": "n",
                        "strict": True,
                        "schema": {"type": "array", "uniqueItems": True},
                    }
                }
            },
            "text.format.schema",
        ),
        ({"reasoning": {"effort": "some"}}, "reasoning.effort"),
        ({"truncation": "never"}, "truncation"),
        ({"conversation": "c"}, "conversation"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "word " * 5000}, "input"),
        ({"tool_choice": {"type": ["a"]}}, "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools", "tools": ["a"]}}, "tool_choice.tools[0]"),
        ({"tool_choice": {"type": "allowed_tools", "tools": 5}}, "tool_choice.tools"),
        ({"tools": [{"type": "custom", "name": "c", "format": "text"}]}, "tools[0].format"),
        ({"include": ["everything"]}, "include"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    scaffold: TurnBuilder, fields: Json, param: str
) -> None:
    with responding(scaffold, "x") as house, pytest.raises(openai.BadRequestError) as caught:
        made(house, **fields)

    assert caught.value.param == param


def test_a_place_in_the_input_counts_nothing_that_came_before(scaffold: TurnBuilder) -> None:
    with responding(scaffold, "x") as house:
        first = made(house)
        with pytest.raises(openai.BadRequestError) as caught:
            made(house, previous_response_id=first.id, input=[{"role": "robot", "content": "x"}])

    assert caught.value.param == "input[0].role"


def test_what_is_never_there_may_be_included(scaffold: TurnBuilder) -> None:
    include = ["web_search_call.action.sources", "file_search_call.results"]
    with responding(scaffold, "Hello!") as house:
        reply = made(house, include=include)
        odd = sent(house, "GET", f"/v1/responses/{reply.id}/input_items?limit=%C2%B2")

    assert reply.output_text == "Hello!"
    assert odd.status == 404, "of another owner, not a failure"


def test_text_of_a_schema_is_asked_for_flat(scaffold: TurnBuilder) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"format": {"type": "json_schema", "name": "n", "schema": schema}}
    with responding(scaffold, '{"a": 1}') as house:
        reply = made(house, text=form)

    assert reply.output_text == '{"a": 1}'


def test_a_cut_response_says_why_it_is_incomplete(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ScriptedReply(["Hel"], "length")) as house:
        reply = made(house, max_output_tokens=1)

    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_an_engine_that_fails_is_told_in_both_shapes(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ScriptedReply(["Hel"], "error")) as house:
        with pytest.raises(openai.APIError) as caught:
            events_of(house)

    assert "engine" in str(caught.value)


NOTE: Json = {"type": "custom", "name": "take_note", "description": "Take a note."}


def test_a_custom_tool_is_given_free_text_and_its_output_taken(scaffold: TurnBuilder) -> None:
    said = calls(("take_note", '{"input": "a \\"b\\" c"}'))
    with responding(scaffold, said, said, "Noted.") as house:
        events = events_of(house, tools=[NOTE])
        first = made(house, tools=[NOTE], tool_choice={"type": "custom", "name": "take_note"})
        (call,) = first.output
        output = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "ok"}
        second = made(house, tools=[NOTE], previous_response_id=first.id, input=[output])

    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[3:5] == ["custom_tool_call_input.delta", "custom_tool_call_input.done"]
    assert (call.type, call.name, call.input) == ("custom_tool_call", "take_note", 'a "b" c')
    assert second.output_text == "Noted."


@pytest.mark.parametrize("syntax", ["lark", "regex"])
def test_a_custom_tool_may_have_a_grammar(scaffold: TurnBuilder, syntax: str) -> None:
    definition = {"lark": "start: /a+b/", "regex": "a+b"}[syntax]
    said = calls(("take_note", '{"input": "aab"}'))
    if syntax == "lark":  # its text ends the reply
        said = said.partition('{"input"')[0] + "aab"
    form = {"type": "grammar", "syntax": syntax, "definition": definition}
    with responding(scaffold, said) as house:
        reply = made(house, tools=[{**NOTE, "format": form}])

    assert [(item.type, item.input) for item in reply.output] == [("custom_tool_call", "aab")]


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "grammar", "syntax": "lark"}, "tools[0].format.definition"),
        ({"type": "grammar", "definition": "a"}, "tools[0].format.syntax"),
        (
            {"type": "grammar", "syntax": "lark", "definition": "start: x"},
            "tools[0].format.definition",
        ),
    ],
)
def test_a_grammar_that_is_none_is_refused(scaffold: TurnBuilder, form: Json, param: str) -> None:
    with responding(scaffold, "x") as house, pytest.raises(openai.BadRequestError) as caught:
        made(house, tools=[{**NOTE, "format": form}])

    assert caught.value.param == param
