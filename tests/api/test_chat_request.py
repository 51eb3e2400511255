"""What a request means."""

from dataclasses import replace
from typing import Any

import pytest
from support.chat_bodies import Json, allowed, answer, asked, called, named, parts, tool

from falsework.grammars.tool_choice import ToolChoice
from falsework.server.api.common_schema import REASONING_EFFORT_TOKENS


def test_both_names_of_the_token_limit_mean_the_same() -> None:
    assert asked(max_tokens=7) == asked(max_completion_tokens=7)
    assert asked(max_tokens=7).sampling.max_tokens == 7
    assert asked().sampling.max_tokens == 0


def test_sampling_is_what_the_client_says() -> None:
    fields = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": -7, "n": 2,
        "frequency_penalty": 0.25, "presence_penalty": -0.5, "repetition_penalty": 1.5,
    }  # fmt: skip

    sampling = asked(**fields, logit_bias={"5": -100}).sampling

    assert {name: getattr(sampling, name) for name in fields} == fields
    assert sampling.logit_bias == {5: -100}


def test_a_top_k_of_minus_one_means_all() -> None:
    assert asked(top_k=-1) == asked()


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 3}, 3),
        ({"top_logprobs": 0}, None),
    ],
)
def test_logprobs_are_given_where_they_are_asked_for(fields: Json, count: int | None) -> None:
    assert asked(**fields).sampling.logprobs == count


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, ToolChoice("auto")),
        ({"tool_choice": "auto"}, ToolChoice("auto")),
        ({"tool_choice": "none"}, ToolChoice("none")),
        ({"tool_choice": "required"}, ToolChoice("required")),
        ({"parallel_tool_calls": False}, ToolChoice("auto", parallel=False)),
        ({"tool_choice": named("f")}, ToolChoice("required", frozenset({"f"}), parallel=False)),
        ({"tool_choice": allowed("f")}, ToolChoice("auto", frozenset({"f"}))),
        (
            {"tool_choice": allowed("f", "g", mode="required")},
            ToolChoice("required", frozenset({"f", "g"})),
        ),
    ],
)
def test_tool_choice_means_what_it_means_at_openai(fields: Json, choice: ToolChoice) -> None:
    question = asked(tools=[tool("f"), tool("g")], **fields)

    assert question.choice == choice
    assert question.named == (fields.get("tool_choice") == named("f"))


@pytest.mark.parametrize("choice", [None, "none", "auto"])
@pytest.mark.parametrize("tools", [None, []])
def test_without_tools_there_is_no_call_to_choose(tools: Any, choice: str | None) -> None:
    question = asked(tools=tools, tool_choice=choice, parallel_tool_calls=True)

    assert (question.tools, question.choice, question.can_call) == ((), ToolChoice("none"), False)


def test_strict_changes_nothing_but_what_may_be_checked_only() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}

    loose, strict = (asked(tools=[tool(parameters=schema, strict=s)]) for s in (False, True))

    assert (loose.tools[0].strict, strict.tools[0].strict) == (False, True)
    assert loose == replace(strict, tools=(replace(strict.tools[0], strict=False),))
    assert loose.tools[0].parameters == schema
    assert loose.tools[0].where == "tools[0].function.parameters"


@pytest.mark.parametrize("function", [{}, {"parameters": None}, {"parameters": {}}])
def test_a_tool_without_parameters_has_no_arguments(function: Json) -> None:
    (offered,) = asked(tools=[tool(**function)]).tools

    assert offered.parameters == {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, True),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, True),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "null"}}},
         {"type": "null"}),
    ],
)  # fmt: skip
def test_response_format_says_what_the_text_must_be(form: Json, schema: Any) -> None:
    assert asked(response_format=form).response_schema == schema


def test_reasoning_effort_is_a_budget_of_tokens() -> None:
    budgets = [asked(reasoning_effort=effort).think_budget for effort in REASONING_EFFORT_TOKENS]

    assert budgets == list(REASONING_EFFORT_TOKENS.values())
    assert (asked().think_budget, asked(reasoning_effort="none").think_budget) == (None, 0)


def test_a_stop_string_and_a_list_of_one_are_the_same() -> None:
    assert asked(stop="x") == asked(stop=["x"])


def test_every_spelling_of_a_message_is_understood() -> None:
    refused = {"type": "refusal", "refusal": "no"}

    question = asked(
        messages=[
            {"role": "developer", "content": parts("a")},
            {"role": "system", "content": "b", "name": "s"},
            {"role": "user", "content": parts("c", "d")},
            {**called("x", "y", arguments="not { json"), "refusal": None, "audio": None,
             "annotations": [], "function_call": None, "parsed": None, "reasoning": "hm",
             "provider_specific_fields": {}},
            {**answer("y"), "name": "f"},
            answer("x"),
            {"role": "assistant", "content": [refused], "tool_calls": []},
            {"role": "assistant", "refusal": "never"},
        ]
    )  # fmt: skip

    roles = " ".join(message.role for message in question.messages)
    texts = [message.text for message in question.messages]
    calling = question.messages[3]

    assert roles == "system system user assistant tool tool assistant assistant"
    assert texts == ["a", "b", "c\nd", "", "42", "42", "no", "never"]
    assert (calling.call_ids, calling.reasoning) == (("x", "y"), "hm")
    assert [call.arguments for call in calling.calls] == ["not { json"] * 2
    assert [message.call_id for message in question.messages[4:6]] == ["x", "y"]
