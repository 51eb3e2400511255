"""Real MCP servers, over both transports: found, called, killed, changed."""

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.mcp_processes import SCRIPT, over_http
from support.server_process import free_port
from support.upstream import call, calls, kind, toolbox, until

from falsework.server.tools.registry import ToolRegistry
from falsework.server.tools.results import ToolResult

pytestmark = pytest.mark.anyio

STDIO = {"command": [sys.executable, SCRIPT, "stdio"]}
TOOLS = ["add", "crash", "refuse", "sleep", "scored"]


def served(**fields: Any) -> dict[str, Any]:
    return {"servers": {"here": {**STDIO, "tools": TOOLS, "effect": "read", **fields}}}


async def connected(box: ToolRegistry) -> None:
    """Wait until all servers have started, which takes longer than a call may."""
    await until(lambda: all(server.connected for server in box.servers.values()), 60)


async def test_a_servers_tools_are_described_by_it_and_called_over_stdio() -> None:
    async with toolbox(**served()) as box:
        tool = box.tools["here__add"]
        await connected(box)
        await tool.load_description()
        outcome = await call(box, '{"a": 2, "b": 3}', "here__add")

    assert outcome.value == {"result": 5}
    assert tool.description == "Add two numbers."
    assert tool.parameters is not None
    assert tool.parameters["required"] == ["a", "b"]


async def test_a_servers_tools_are_called_over_http() -> None:
    port = free_port()
    entry = {"url": f"http://127.0.0.1:{port}/mcp", "tools": ["add"], "effect": "read"}
    with over_http(port):
        async with toolbox(servers={"here": entry}) as box:
            outcome = await call(box, '{"a": 2, "b": 3}', "here__add")

    assert outcome.value == {"result": 5}


async def test_a_tool_that_says_no_is_told_to_the_model_and_not_tried_again() -> None:
    async with toolbox(**served()) as box:
        outcome = await call(box, '{"why": "not on Sundays"}', "here__refuse")

    assert (kind(outcome), outcome.attempts) == ("tool_error", 1)
    assert "not on Sundays" in outcome.for_model()


async def test_a_server_that_dies_in_mid_call_is_started_again_and_others_notice_nothing(
    tmp_path: Path,
) -> None:
    other = {
        "here": served()["servers"]["here"],
        "there": {**STDIO, "tools": ["sleep"], "effect": "read"},
    }
    asked = [("here__crash", f'{{"marker": "{tmp_path}/crashed"}}'),
             ("there__sleep", '{"seconds": 0.5}')]  # fmt: skip
    async with toolbox(servers=other) as box:
        crashed, slept = await calls(box, asked)

    assert (crashed.value, crashed.attempts > 1) == ({"result": "alive"}, True)
    assert (slept.value, slept.attempts) == ({"result": "slept"}, 1)


async def test_a_write_whose_server_died_is_not_repeated(tmp_path: Path) -> None:
    async with toolbox(**served(effect="write")) as box:
        outcome = await call(box, f'{{"marker": "{tmp_path}/crashed"}}', "here__crash")
        again = await call(box, '{"a": 1, "b": 1}', "here__add")

    assert (outcome.attempts, outcome.effect) == (1, "unknown")
    assert again.ok


async def call_until_ok(box: ToolRegistry, arguments: str, tool: str) -> ToolResult:
    """Call as a client does that comes again: a waiting call makes the server reconnect."""
    with anyio.fail_after(45):
        while not (result := await call(box, arguments, tool)).ok:  # noqa: ASYNC110
            await anyio.sleep(0.2)
    return result


async def test_a_server_over_http_that_is_killed_is_reached_again_when_it_is_back() -> None:
    port = free_port()
    entry = {"url": f"http://127.0.0.1:{port}/mcp", "tools": ["add"], "effect": "read"}
    with over_http(port) as process:
        async with toolbox(servers={"here": entry}) as box:
            assert (await call(box, '{"a": 1, "b": 1}', "here__add")).ok
            process.kill()
            process.wait()
            lost = await call(box, '{"a": 1, "b": 2}', "here__add")
            with over_http(port):
                back = await call_until_ok(box, '{"a": 1, "b": 3}', "here__add")

    assert kind(lost) == "unavailable"
    assert back.ok


async def test_a_server_killed_in_mid_call_over_http_is_back_and_others_go_on(
    tmp_path: Path,
) -> None:
    port, other_port = free_port(), free_port()
    patient = {"attempt_timeout": "40s", "deadline": "50s"}
    entry = {"tools": ["add", "sleep"], "effect": "read", **patient}
    servers = {
        "here": {**entry, "url": f"http://127.0.0.1:{port}/mcp"},
        "there": {**entry, "url": f"http://127.0.0.1:{other_port}/mcp"},
    }
    ends: dict[str, ToolResult] = {}
    both = anyio.Event()

    async def slept(server: str) -> None:
        arguments = {"seconds": 2, "marker": str(tmp_path / server)}
        ends[server] = await call(box, json.dumps(arguments), f"{server}__sleep", 60)
        if len(ends) == len(servers):
            both.set()

    with over_http(port) as process, over_http(other_port):
        async with toolbox(servers=servers) as box, anyio.create_task_group() as tasks:
            tasks.start_soon(slept, "here")
            tasks.start_soon(slept, "there")
            await until(lambda: all((tmp_path / server).exists() for server in servers))
            process.kill()
            process.wait()
            with over_http(port):
                back = await call(box, '{"a": 1, "b": 3}', "here__add")
                await both.wait()

    assert back.ok
    assert (ends["there"].value, ends["there"].attempts) == ({"result": "slept"}, 1)
    assert (ends["here"].value, ends["here"].attempts > 1) == ({"result": "slept"}, True)


async def test_a_schema_that_changed_under_us_is_refused() -> None:
    port = free_port()
    entry = {"url": f"http://127.0.0.1:{port}/mcp", "tools": ["scored", "add"], "effect": "read"}
    with over_http(port) as process:
        async with toolbox(servers={"here": entry}) as box:
            assert (await call(box, '{"account": 1}', "here__scored")).ok
            process.kill()
            process.wait()
            await call(box, '{"a": 1, "b": 1}', "here__add")
            with over_http(port, MCP_SCHEMA="other"):
                same = await call_until_ok(box, '{"a": 1, "b": 2}', "here__add")
                changed = await call(box, '{"account": 2}', "here__scored")

    assert kind(changed) == "precondition_failed"
    assert same.ok


async def test_a_call_that_takes_too_long_ends_in_time() -> None:
    fields = {"attempt_timeout": "200ms", "retry": {"max_attempts": 1}}
    async with toolbox(**served(**fields)) as box:
        await connected(box)
        outcome = await call(box, '{"seconds": 5}', "here__sleep")
        after = await call(box, '{"a": 1, "b": 1}', "here__add", 20)

    assert kind(outcome) == "timeout"
    assert outcome.seconds < 0.4
    assert after.ok or kind(after) == "timeout"  # a server that runs one call at a time
