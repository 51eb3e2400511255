"""Turns of which the client runs a part, and the server the rest."""

from pathlib import Path
from typing import Any

import pytest
from support.chat_bodies import USER, Json, refusal, tool
from support.clients import CHAT, HELLO, client, sent
from support.real_tokenizers import hugging_face
from support.scripted_app import Running, calls, scaffold_of
from support.tool_app import an_upstream, house_of
from support.upstream import http_tool, says

from falsework.server.generation.turn import TurnBuilder

LOOK = {"type": "server_tool", "name": "look"}
ASKED: Json = {**HELLO, "tools": [LOOK, tool("f")]}
KEY = {"authorization": "Bearer k"}
MIXED = calls(("look", '{"id": 1}'), ("f", "{}"))


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Any:
    return hugging_face(smollm2)


def told(house: Running, *, stream: bool) -> Json:
    """Return the assistant's message."""
    if not stream:
        message: Json = sent(house, "POST", CHAT, ASKED, **KEY).json["choices"][0]["message"]
        return message
    with client(house) as sdk:
        chunks = list(sdk.chat.completions.create(**ASKED, stream=True))
    deltas = [choice.delta.model_dump() for chunk in chunks for choice in chunk.choices]
    called = [call for delta in deltas for call in delta["tool_calls"] or ()]
    arguments = "".join(call["function"]["arguments"] for call in called)
    function = {"name": called[0]["function"]["name"], "arguments": arguments}
    executed = [call for delta in deltas for call in delta.get("executed_tools") or ()]
    one = {"id": called[0]["id"], "type": "function", "function": function}
    return {"role": "assistant", "tool_calls": [one], "executed_tools": executed}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echoed", [False, True])
def test_the_model_sees_the_servers_results_when_the_client_comes_back(
    scaffold: TurnBuilder, tokenizer: Any, *, stream: bool, echoed: bool
) -> None:
    with an_upstream(always=says({"secret": "XYZZY"})) as up:
        with house_of(scaffold, MIXED, "Done.", file={"tools": [http_tool(up)]}) as house:
            message = told(house, stream=stream)
            executed = message.pop("executed_tools")
            message |= {"executed_tools": executed} if echoed else {}
            answer = {
                "role": "tool",
                "tool_call_id": message["tool_calls"][0]["id"],
                "content": "PLUGH",
            }
            reply = sent(house, "POST", CHAT, {**ASKED, "messages": [USER, message, answer]}, **KEY)
            prompt = tokenizer.decode(house.engine.asked[1][0])

    assert [call["name"] for call in executed] == ["look"]
    assert reply.json["choices"][0]["message"]["content"] == "Done."
    assert 0 < prompt.index('"look"') < prompt.index("XYZZY") < prompt.index("PLUGH")


def test_a_call_that_failed_is_told_again_as_the_error_that_it_was(
    scaffold: TurnBuilder, tokenizer: Any
) -> None:
    with an_upstream(always=says({}, 404)) as up:
        with house_of(scaffold, MIXED, "Done.", file={"tools": [http_tool(up)]}) as house:
            message = told(house, stream=False)
            answer = {
                "role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "1",
            }  # fmt: skip
            sent(house, "POST", CHAT, {**ASKED, "messages": [USER, message, answer]}, **KEY)
            prompt = tokenizer.decode(house.engine.asked[1][0])

    assert '{"ok":false,"error":{"type":"upstream_rejected"' in prompt


def test_nobody_is_told_what_the_server_ran_for_another(
    scaffold: TurnBuilder, tokenizer: Any
) -> None:
    with an_upstream(always=says({"secret": "XYZZY"})) as up:
        with house_of(scaffold, MIXED, "Done.", file={"tools": [http_tool(up)]}) as house:
            message = told(house, stream=False)
            del message["executed_tools"]
            answer = {
                "role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "1",
            }  # fmt: skip
            body = {**ASKED, "messages": [USER, message, answer]}
            sent(house, "POST", CHAT, body, authorization="Bearer other")
            prompt = tokenizer.decode(house.engine.asked[1][0])

    assert "XYZZY" not in prompt


def test_executed_tools_are_refused_by_the_name_of_what_is_wrong() -> None:
    message = {"role": "assistant", "content": "x", "executed_tools": [{"id": 1}]}

    assert refusal(messages=[USER, message]).param == "messages.[1].executed_tools[0].id"
