"""What a request is refused for, and what it isn't."""

from typing import get_type_hints

import pytest
from openai.types.chat import completion_create_params
from support.chat_bodies import USER, Json, allowed, answer, asked, called, named, refusal, tool

from falsework.server.api.chat.schema import (
    IGNORED_FIELDS,
    UNSUPPORTED_FIELDS,
    ChatCompletionRequest,
    parse,
)
from falsework.server.errors import BadRequestError

REFUSALS: list[tuple[Json, str]] = [
    ({"model": None}, "model"),
    ({"model": 3}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": [USER] * 21}, "messages"),
    ({"messages": [{"role": "function", "content": ""}]}, "messages.[0].role"),
    ({"messages": [USER, {"content": "x"}]}, "messages.[1].role"),
    ({"messages": [{"role": "user"}]}, "messages.[0].content"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages.[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages.[0].content[0].text",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages.[0].content[0].type",
    ),
    ({"messages": [USER, answer("a")]}, "messages.[1].role"),
    ({"messages": [called("a"), answer("b")]}, "messages.[1].tool_call_id"),
    ({"messages": [called("a", "b"), answer("a"), USER]}, "messages.[2].role"),
    ({"messages": [USER, called("a")]}, "messages.[2].role"),
    ({"messages": [called("a"), USER, answer("b")]}, "messages.[2].role"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.[0].role"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}]},
        "messages.[0].tool_calls[0].type",
    ),
    (
        {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]},
        "messages.[1].role",
    ),
    (
        {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]},
        "messages.[0].function_call.arguments",
    ),
    ({"tools": [tool("bad name")]}, "tools[0].function.name"),
    ({"tools": [tool("")]}, "tools[0].function.name"),
    ({"tools": [tool("n" * 65)]}, "tools[0].function.name"),
    ({"tools": [tool("a\n")]}, "tools[0].function.name"),
    ({"tools": [tool(), {"type": "function"}]}, "tools[1].function"),
    ({"tools": [tool("a"), tool("b"), tool("a")]}, "tools[2].function.name"),
    ({"tools": [tool("a"), tool("b"), tool("c"), tool("d")]}, "tools"),
    ({"tools": [{"type": "computer"}], "tool_choice": "required"}, "tool_choice"),
    ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
    ({"tools": [tool(parameters={"description": "x" * 2000})]}, "tools[0].function.parameters"),
    ({"tools": [tool(parameters=42)]}, "tools[0].function.parameters"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "required", "tools": []}, "tool_choice"),
    ({"tool_choice": named("f")}, "tool_choice"),
    ({"tools": [tool()], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [tool()], "tool_choice": named("g")}, "tool_choice"),
    ({"tools": [tool()], "tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tools": [tool()], "tool_choice": {"type": "custom"}}, "tool_choice"),
    ({"tools": [tool()], "tool_choice": allowed("g")}, "tool_choice.allowed_tools.tools[0]"),
    ({"tools": [tool()], "tool_choice": allowed()}, "tool_choice.allowed_tools"),
    ({"tools": [tool()], "tool_choice": allowed("f", mode="x")}, "tool_choice.allowed_tools.mode"),
    ({"response_format": {"type": "grammar"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
        "response_format.json_schema.name",
    ),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"description": "x" * 2000}},
            }
        },
        "response_format.json_schema.schema",
    ),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": -0.1}, "min_p"),
    ({"n": 0}, "n"),
    ({"n": 5}, "n"),
    ({"n": 1.5}, "n"),
    ({"seed": 2**63}, "seed"),
    ({"frequency_penalty": -2.5}, "frequency_penalty"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"logit_bias": {"5": 101}}, "logit_bias[5]"),
    ({"logit_bias": {"five": 1}}, "logit_bias"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ""}, "stop[0]"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"reasoning_effort": "enormous"}, "reasoning_effort"),
    ({"metadata": {"k" * 65: "v"}}, "metadata"),
    ({"metadata": {str(i): "v" for i in range(17)}}, "metadata"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSALS, ids=lambda value: str(value)[:60])
def test_a_request_that_is_wrong_is_refused_by_the_name_of_the_field(
    fields: Json, param: str
) -> None:
    fault = refusal(**fields)

    assert fault.param == param


@pytest.mark.parametrize("name", UNSUPPORTED_FIELDS)
def test_a_field_that_would_change_the_result_and_is_not_honoured_is_refused_by_name(
    name: str,
) -> None:
    fault = refusal(**{name: "something"})

    assert (fault.param, fault.code) == (name, "unsupported_parameter")
    assert name in fault.message


@pytest.mark.parametrize("name", UNSUPPORTED_FIELDS)
def test_such_a_field_is_accepted_where_it_asks_for_nothing(name: str) -> None:
    assert asked(**{name: UNSUPPORTED_FIELDS[name][0]}) == asked(**{name: None}) == asked()


@pytest.mark.parametrize("name", [*sorted(IGNORED_FIELDS), "a_field_of_next_year"])
def test_a_field_that_changes_nothing_here_is_accepted(name: str) -> None:
    assert asked(**{name: "something"}) == asked()


@pytest.mark.parametrize(
    "name", sorted({*ChatCompletionRequest.model_fields} - {"model", "messages"})
)
def test_an_explicit_null_is_as_good_as_no_field(name: str) -> None:
    assert asked(**{name: None}) == asked()


def test_every_field_of_the_official_client_is_honoured_ignored_or_refused() -> None:
    theirs = get_type_hints(completion_create_params.CompletionCreateParamsNonStreaming)

    ours = [*ChatCompletionRequest.model_fields, *IGNORED_FIELDS, *UNSUPPORTED_FIELDS]

    assert set(theirs) <= set(ours)
    assert len(ours) == len(set(ours))


def test_a_body_that_is_not_json_is_refused() -> None:
    for body in (b"{", b"[]", b'{"model": NaN}', b'"\\ud800"', b"[" * 10_000, b"\xff"):
        with pytest.raises(BadRequestError, match="JSON"):
            parse(body)
