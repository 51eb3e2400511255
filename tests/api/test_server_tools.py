"""Tools that the server runs, on chat completions: a scripted model, real tools."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from support.chat_bodies import Json, tool
from support.clients import CHAT, HELLO, client, left_open, sent
from support.mcp_processes import over_http as mcp_over_http
from support.response_bodies import FILE
from support.scripted_app import SETTINGS, calls, eventually, running, scaffold_of
from support.server_process import free_port
from support.tool_app import an_upstream, house_of
from support.upstream import http_tool, says, says_bytes

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder
from falsework.server.tools.registry import ToolRegistry, open_registry

LOOK = {"type": "server_tool", "name": "look"}


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


def asked(**fields: Any) -> Json:
    return {**HELLO, "tools": [LOOK], **fields}


def test_the_server_runs_its_tool_and_the_model_answers_from_the_result(
    scaffold: TurnBuilder,
) -> None:
    with an_upstream(says({"name": "Ada"})) as up:
        file = {"tools": [http_tool(up)]}
        with house_of(scaffold, calls(("look", '{"id": 1}')), "It is Ada.", file=file) as house:
            reply = sent(house, "POST", CHAT, asked()).json
            prompts = len(house.engine.asked)

    message = reply["choices"][0]["message"]
    (executed,) = message["executed_tools"]
    assert (message["content"], reply["choices"][0]["finish_reason"]) == ("It is Ada.", "stop")
    assert "tool_calls" not in message
    assert (executed["name"], executed["arguments"]) == ("look", '{"id": 1}')
    assert (json.loads(executed["output"]), executed["error"]) == ({"name": "Ada"}, None)
    assert reply["usage"]["tool_runtime"]["tool_calls"] == 1
    assert (prompts, up.seen[0].path) == (2, "/look?id=1")


def test_a_stream_tells_the_same(scaffold: TurnBuilder) -> None:
    with an_upstream(says({"name": "Ada"})) as up:
        file = {"tools": [http_tool(up)]}
        with house_of(scaffold, calls(("look", "{}")), "It is Ada.", file=file) as house:
            with client(house) as sdk:
                stream = sdk.chat.completions.create(**asked(), stream=True)
                chunks = list(stream)

    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    executed = [delta.executed_tools for delta in deltas if hasattr(delta, "executed_tools")]  # type: ignore[attr-defined]
    assert "".join(delta.content or "" for delta in deltas) == "It is Ada."
    assert [call["name"] for (call,) in executed] == ["look"]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_turn_with_the_clients_calls_too_runs_ours_and_returns_theirs(
    scaffold: TurnBuilder,
) -> None:
    with an_upstream() as up:
        file = {"tools": [http_tool(up)]}
        said = calls(("look", '{"id": 1}'), ("f", "{}"))
        with house_of(scaffold, said, file=file) as house:
            reply = sent(house, "POST", CHAT, asked(tools=[LOOK, tool("f")])).json

    message = reply["choices"][0]["message"]
    assert reply["choices"][0]["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["f"]
    assert [call["name"] for call in message["executed_tools"]] == ["look"]


def test_a_tool_that_fails_for_good_is_told_to_the_model_and_the_reply_is_200(
    scaffold: TurnBuilder,
) -> None:
    with an_upstream(always=says({}, 500)) as up:
        file = {"tools": [http_tool(up)]}
        with house_of(scaffold, calls(("look", "{}")), "Sorry.", file=file) as house:
            reply = sent(house, "POST", CHAT, asked())

    (executed,) = reply.json["choices"][0]["message"]["executed_tools"]
    assert reply.status == 200
    assert executed["error"]["type"] == "upstream_error"
    assert reply.json["usage"]["tool_runtime"]["partial"] is True


def test_a_hung_tool_ends_with_the_requests_deadline_and_with_an_answer(
    scaffold: TurnBuilder,
) -> None:
    slow = {"deadline": "30s", "attempt_timeout": "30s"}
    with an_upstream(always=says({}, after=5)) as up:
        file = {"tools": [http_tool(up, **slow)], "request": {"answer_reserve": "500ms"}}
        with house_of(scaffold, calls(("look", "{}")), "No idea.", file=file) as house:
            begun = time.monotonic()
            reply = sent(house, "POST", CHAT, asked(), x_request_deadline_ms="1500")
            took = time.monotonic() - begun

    message = reply.json["choices"][0]["message"]
    assert (message["content"], message["executed_tools"][0]["error"]["type"]) == (
        "No idea.",
        "timeout",
    )
    assert took < 1.6


def test_a_model_that_never_stops_calling_is_asked_for_its_answer(scaffold: TurnBuilder) -> None:
    with an_upstream() as up:
        file = {"tools": [http_tool(up)], "request": {"max_steps": 3}}
        turns = [calls(("look", '{"id": 1}')), calls(("look", '{"id": 2}')), "Enough."]
        with house_of(scaffold, *turns, file=file) as house:
            reply = sent(house, "POST", CHAT, asked()).json

    assert reply["choices"][0]["message"]["content"] == "Enough."
    assert reply["usage"]["tool_runtime"]["stopped_by"] == "max_steps"


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"type": "server_tool", "name": "other"}, "tools[0].name"),
        ({"type": "server_tool", "name": "hidden"}, "tools[0].name"),
        ({"type": "mcp", "server_label": "other"}, "tools[0].server_label"),
        ({"type": "mcp"}, "tools[0].server_label"),
    ],
)
def test_a_tool_that_the_server_does_not_have_is_refused_by_name(
    scaffold: TurnBuilder, wanted: Json, param: str
) -> None:
    with an_upstream() as up:
        file = {"tools": [http_tool(up), http_tool(up, "hidden", expose=False)]}
        with house_of(scaffold, "Hello", file=file) as house:
            reply = sent(house, "POST", CHAT, asked(tools=[wanted]))

    assert (reply.status, reply.error["param"]) == (400, param)


def test_more_than_one_choice_would_run_tools_twice_and_is_refused(scaffold: TurnBuilder) -> None:
    with an_upstream() as up, house_of(scaffold, "x", file={"tools": [http_tool(up)]}) as house:
        reply = sent(house, "POST", CHAT, asked(n=2))

    assert (reply.status, reply.error["param"]) == (400, "n")


def test_an_error_after_a_write_tells_the_client_not_to_ask_again(scaffold: TurnBuilder) -> None:
    with an_upstream() as up:
        file = {"tools": [http_tool(up, method="POST")]}
        lines = [calls(("look", "{}")), ScriptedReply([], "error")]
        with house_of(scaffold, *lines, file=file) as house:
            reply = sent(house, "POST", CHAT, asked())

    assert reply.status == 500
    assert reply.headers["x-should-retry"] == "false"
    assert len(up.seen) == 1


def in_flight() -> float | None:
    return REGISTRY.get_sample_value("falsework_bulkhead_in_flight", {"tool": "look"})


@pytest.mark.parametrize("stream", [False, True])
def test_when_the_client_leaves_a_read_ends_at_once(scaffold: TurnBuilder, *, stream: bool) -> None:
    with an_upstream(always=says({}, after=20)) as up:
        slow = {"deadline": "30s", "attempt_timeout": "30s"}
        file = {"tools": [http_tool(up, **slow)]}
        with house_of(scaffold, calls(("look", "{}")), "x", file=file) as house:
            connection = left_open(house, tools=[LOOK], stream=stream)
            assert eventually(lambda: up.seen)
            assert in_flight() == 1
            connection.close()
            assert eventually(lambda: in_flight() == 0, 0.5)
            assert house.engine.open == 0


def test_a_server_whose_tools_have_ended_is_not_ready(scaffold: TurnBuilder) -> None:
    made: list[ToolRegistry] = []

    @asynccontextmanager
    async def tools() -> AsyncIterator[ToolRegistry]:
        async with open_registry() as box:
            made.append(box)
            yield box

    with running(ScriptedEngine(ScriptedReply(["a"])), scaffold, SETTINGS, tools()) as house:
        before = sent(house, "GET", "/ready")
        made[0].closed = True
        after = sent(house, "GET", "/ready")

    assert (before.status, after.status, after.error["code"]) == (200, 503, "tools_unavailable")


def test_an_answer_that_breaks_a_write_breaks_no_request_after_it(scaffold: TurnBuilder) -> None:
    with an_upstream(says_bytes(b"[" * 100_000)) as up:
        file = {"tools": [http_tool(up, method="POST")]}
        said = [calls(("look", "{}")), "First.", calls(("look", '{"id": 2}')), "Second."]
        with house_of(scaffold, *said, file=file) as house:
            first, second = (sent(house, "POST", CHAT, asked()) for _ in range(2))
            ready = sent(house, "GET", "/ready")

    (broken,) = first.json["choices"][0]["message"]["executed_tools"]
    assert (broken["error"]["type"], broken["effect"]) == ("bad_response", "unknown")
    assert second.json["choices"][0]["message"]["executed_tools"][0]["effect"] == "applied"
    assert ready.status == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("brought", [False, True])
def test_a_tool_of_an_mcp_server_is_run_and_told_of(
    scaffold: TurnBuilder, *, stream: bool, brought: bool
) -> None:
    port = free_port()
    wanted: Json = {"type": "mcp", "server_label": "sums", "require_approval": "never"}
    file: Json = {"request_servers": {"allow_hosts": ["127.0.0.1"], "deny_private": False}}
    if brought:
        wanted |= {"server_url": f"http://127.0.0.1:{port}/mcp", "allowed_tools": ["add"]}
    else:
        file = FILE
    turns = [calls(("sums__add", '{"a": 2, "b": 3}')), "Five."]
    with mcp_over_http(port) if brought else nullcontext():
        with house_of(scaffold, *turns, file=file) as house, client(house) as sdk:
            said = sdk.chat.completions.create(**asked(tools=[wanted]), stream=stream)
            choices = [one for each in (said if stream else [said]) for one in each.choices]

    parts = [choice.delta if stream else choice.message for choice in choices]
    (executed,) = [each for part in parts for each in getattr(part, "executed_tools", ())]
    assert (executed["name"], executed["output"]) == ("sums__add", '{"result":5}')
    assert "".join(part.content or "" for part in parts) == "Five."
    assert choices[-1].finish_reason == "stop"


def test_a_chain_whose_third_step_fails_for_good_returns_the_first_two(
    scaffold: TurnBuilder,
) -> None:
    with an_upstream(says("found"), says("scored"), always=says({}, 500)) as up:
        tools = [http_tool(up, "find"), http_tool(up, "score", requires=["find"]),
                 http_tool(up, "save", method="POST", requires=["score"])]  # fmt: skip
        turns = [calls((name, "{}")) for name in ("find", "score", "save")]
        wanted = [{"type": "server_tool", "name": each["name"]} for each in tools]
        with house_of(scaffold, *turns, "Not saved.", file={"tools": tools}) as house:
            reply = sent(house, "POST", CHAT, asked(tools=wanted))

    message, usage = reply.json["choices"][0]["message"], reply.json["usage"]["tool_runtime"]
    *done, failed = message["executed_tools"]
    assert (reply.status, message["content"], usage["partial"]) == (200, "Not saved.", True)
    assert [(each["name"], each["output"]) for each in done] == [("find", "found"),
                                                                 ("score", "scored")]  # fmt: skip
    assert (failed["name"], failed["error"]["type"]) == ("save", "upstream_error")
    assert (failed["effect"], failed["error"]["retryable"], len(up.seen)) == ("unknown", False, 3)


@pytest.mark.parametrize("stream", [False, True])
def test_after_a_client_left_in_the_middle_of_a_read_the_next_is_served(
    scaffold: TurnBuilder, *, stream: bool
) -> None:
    with an_upstream(says({}, after=20), always=says("quick")) as up:
        slow = {"deadline": "30s", "attempt_timeout": "30s"}
        file = {"tools": [http_tool(up, **slow)]}
        said = [calls(("look", "{}")), calls(("look", "{}")), "Done."]
        with house_of(scaffold, *said, file=file) as house:
            connection = left_open(house, tools=[LOOK], stream=stream)
            assert eventually(lambda: up.seen)
            connection.close()
            assert eventually(lambda: house.app.state.admission.taken == 0, 0.5)
            after = sent(house, "POST", CHAT, asked())

            assert house.engine.open == 0
    (executed,) = after.json["choices"][0]["message"]["executed_tools"]
    assert executed["output"] == "quick"
