"""Items of a conversation: turned into messages, or refused by their place."""

import json
from typing import Any

import pytest
from support.chat_bodies import Json

from falsework.server.api.responses.messages import to_messages
from falsework.server.errors import BadRequestError

USER: Json = {"role": "user", "content": "?"}


def fc(call_id: str, arguments: str = "{}") -> Json:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": arguments}


def out(call_id: str) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": "out"}


def ran(item_id: str, label: str = "falsework", **more: Any) -> Json:
    said = {"name": "look", "server_label": label, "arguments": "{}", "output": "seen"}
    return {"type": "mcp_call", "id": item_id, **said, **more}


def thought(text: str) -> Json:
    return {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}]}


def test_a_turn_may_hold_a_clients_call_and_several_of_the_servers() -> None:
    items = [USER, fc("c"), ran("m1"), ran("m2"), out("c"), {"role": "assistant", "content": "a"}]

    messages = to_messages(items, None)

    roles = [message.role for message in messages]
    assert roles == ["user", "assistant", "tool", "tool", "tool", "assistant"]
    assert messages[1].call_ids == ("c", "m1", "m2")


def test_a_call_behind_the_results_of_all_is_of_the_next_turn() -> None:
    messages = to_messages([USER, ran("m1"), ran("m2")], None)

    assert [message.role for message in messages] == ["user", *["assistant", "tool"] * 2]


def test_a_thought_begins_the_turn_that_it_is_of() -> None:
    items = [USER, thought("one"), fc("a"), out("a"), thought("two"), fc("b"), out("b")]

    messages = to_messages(items, None)

    assert [message.reasoning for message in messages if message.calls] == ["one", "two"]


def test_of_a_call_that_was_cut_off_the_model_reads_that_its_effect_is_unknown() -> None:
    (*_, result) = to_messages([USER, ran("m", output=None, status="incomplete")], None)

    error = json.loads(result.text)["error"]
    assert (error["type"], error["effect"]) == ("cancelled", "unknown")


@pytest.mark.parametrize(
    ("label", "tools", "name"),
    [
        ("guest", {"guest__look"}, "guest__look"),
        ("guest", set(), "guest__look"),
        ("falsework", {"look"}, "look"),
        ("analytics", {"look"}, "look"),
    ],
)
def test_a_call_has_the_name_by_which_the_model_knows_its_tool(
    label: str, tools: set[str], name: str
) -> None:
    (_, call, _) = to_messages([USER, ran("m", label)], None, frozenset(tools))

    assert call.calls[0].name == name


def test_a_call_without_arguments_has_none() -> None:
    (_, call, _) = to_messages([USER, fc("c", ""), out("c")], None)

    assert call.calls[0].arguments == "{}"


def test_instructions_may_come_as_messages_alone() -> None:
    messages = to_messages([{"role": "developer", "content": "Say hello."}], None)

    assert [message.role for message in messages] == ["system"]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": ["message"]}, "input[0].type"),
        ({"type": {"a": 1}}, "input[0].type"),
        ({"role": "user", "content": [{"type": ["text"]}]}, "input[0].content[0].type"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0]"),
        ({"role": "user", "content": "x", "id": 5}, "input[0].id"),
        ({"role": ["user"], "content": "x"}, "input[0].role"),
        ({"type": "reasoning", "content": 5}, "input[0].content"),
        ({"type": "mcp_call", "id": "m", "name": "f", "arguments": {}}, "input[0].arguments"),
        ({"type": "mcp_approval_request", "id": "m"}, "input[0].name"),
        ({"type": "mcp_approval_request", "id": ["m"]}, "input[0].id"),
        (
            {"type": "mcp_approval_response", "approval_request_id": ["m"], "approve": True},
            "input[0].approval_request_id",
        ),
        ({"type": "mcp_list_tools", "server_label": ["x"]}, "input[0].server_label"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": 5}, "input[0].input"),
    ],
)
def test_an_item_of_another_form_is_refused_by_name(item: Json, param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        to_messages([USER, item], None, before=1)

    assert caught.value.param == param
