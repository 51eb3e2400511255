"""A tool that is only offered and can't be served is left out; one that is needed is refused."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.chat_bodies import Json, asked, named, tool
from support.clients import CHAT, HELLO, sent
from support.scripted_app import SETTINGS, calls, running
from support.scripted_chat import says

from falsework.grammars.events import Tool
from falsework.server.errors import InvalidSchemaError
from falsework.server.generation.turn import TurnBuilder
from falsework.server.observability import collect_warnings

IMPOSSIBLE: Json = {"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}
GOOD = tool("good")


def nested(levels: int) -> Json:
    schema: Json = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


DEEP = tool("deep", parameters=nested(70))


def test_a_schema_that_is_more_than_can_be_served_leaves_its_tool_out(plain: TurnBuilder) -> None:
    with running(says(calls(("good", "{}"))), plain, SETTINGS) as house:
        reply = sent(house, "POST", CHAT, {**HELLO, "tools": [DEEP, GOOD]})

    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "good"
    assert "deep" in reply.headers["warning"]
    assert reply.json["warnings"][0]["code"] == "tool_left_out"


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ([DEEP, GOOD], named("deep"), "tools[0].function.parameters"),
        ([DEEP], "required", "tools[0].function.parameters"),
        ([tool("bad", parameters=IMPOSSIBLE), GOOD], "auto", "tools[0].function.parameters"),
        ([tool("deep", parameters=nested(70), strict=True), GOOD], "auto",
         "tools[0].function.parameters"),
    ],
)  # fmt: skip
def test_a_tool_that_is_needed_or_that_the_client_got_wrong_is_refused(
    plain: TurnBuilder, tools: list[Json], choice: Any, param: str
) -> None:
    with running(says("x"), plain, SETTINGS) as house:
        reply = sent(house, "POST", CHAT, {**HELLO, "tools": tools, "tool_choice": choice})

    assert (reply.status, reply.error["param"]) == (400, param)


@pytest.mark.parametrize("parameters", [IMPOSSIBLE, {"type": "object", "properties": []}])
def test_a_tool_of_a_server_is_left_out_whatever_is_wrong_with_it(
    plain: TurnBuilder, parameters: Json
) -> None:
    warnings = collect_warnings()
    request = asked(tools=[GOOD])
    bad = Tool("theirs", "Theirs.", parameters, "tools[1].parameters", foreign=True)

    turn = asyncio.run(plain.build(replace(request, tools=(*request.tools, bad))))
    needed = replace(request, tools=(bad,), choice=replace(request.choice, mode="required"))
    with pytest.raises(InvalidSchemaError):
        asyncio.run(plain.build(needed))

    assert [one.name for one in turn.request.tools] == ["good"]
    assert [one.param for one in warnings] == ["tools: theirs"]
