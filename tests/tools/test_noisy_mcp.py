"""MCP servers that flood, and schemas that take for ever: who else is hurt."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs
from support.mcp_over_http import HTTP, replied, speaks
from support.misbehaving_mcp_server import TOOL
from support.upstream import Json, Seen, call, http_tool, kind, toolbox, until, upstream

from falsework.server.tools.executors.output_budget import LINE_COST, OutputBudget
from falsework.server.tools.schema_checker import CHECK_SECONDS

pytestmark = pytest.mark.anyio

SCRIPT = str(Path(__file__).parents[1] / "support" / "misbehaving_mcp_server.py")
PATIENT = {"attempt_timeout": "20s", "deadline": "25s", "breaker": {"enabled": False}}


def server(script: Json, **fields: Any) -> Json:
    command = [sys.executable, SCRIPT, json.dumps(script)]
    return {"command": command, "tools": ["t"], "effect": "read", **PATIENT, **fields}


class Gaps:
    """Measures how long the event loop was held."""

    longest = 0.0

    async def measure(self) -> None:
        last = time.monotonic()
        while True:
            await anyio.sleep(0.001)
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now


@asynccontextmanager
async def measured() -> AsyncIterator[Gaps]:
    gaps = Gaps()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gaps.measure)
        yield gaps
        tasks.cancel_scope.cancel()


async def connected(box: Any, seconds: float = 60) -> None:
    await until(lambda: all(one.connected for one in box.servers.values()), seconds)


@pytest.mark.parametrize("flood", ["one line", "lines", "messages", "bytes"])
async def test_a_server_that_floods_its_output_is_killed_and_told_of_and_nobody_waits(
    flood: str,
) -> None:
    file = {"servers": {"here": server({"tools/call": f"flood: {flood}"})}}
    async with upstream() as up, toolbox(http_tool(up), **file) as box:
        await connected(box)
        async with measured() as gaps:
            began = time.monotonic()
            outcome = await call(box, name="here__t")
            took = time.monotonic() - began
            victim = await call(box)
        await until(lambda: box.servers["here"].restarts >= 1)

    assert (kind(outcome), outcome.attempts) == ("too_large", 1)
    assert victim.ok
    assert (took < 10, gaps.longest < 1) == (True, True)


async def test_what_a_server_writes_to_its_standard_error_is_logged_up_to_a_rate() -> None:
    file = {"servers": {"here": server({"tools/call": "errors: 2000"})}}
    with capture_logs() as logged:
        async with toolbox(**file) as box:
            await connected(box)
            outcome = await call(box, name="here__t")

    lines = [line for line in logged if "text" in line]
    assert outcome.value == "done"
    assert 1 <= len(lines) <= 100
    assert lines[0]["server"] == "here"
    assert lines[0]["text"].startswith("error number 0")


def events(*messages: Json) -> bytes:
    return b"".join(b"data: " + json.dumps(message).encode() + b"\n\n" for message in messages)


async def endless_events(_: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\n")
    note = {"jsonrpc": "2.0", "method": "notifications/message",
            "params": {"level": "info", "data": "noise"}}  # fmt: skip
    while True:
        writer.write(events(*[note] * 100))
        await writer.drain()


async def endless_line(_: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\ndata: ")
    while True:
        writer.write(b"x" * 2**16)
        await writer.drain()


@pytest.mark.parametrize("flood", [endless_events, endless_line])
async def test_a_server_that_floods_events_is_cut_off_and_nobody_waits(flood: Any) -> None:
    async with upstream(always=speaks(tools_call=flood)) as up:
        entry = {"url": f"{up.url}/mcp", "tools": ["t"], "effect": "read", **PATIENT}
        async with toolbox(servers={"here": entry}) as box:
            await connected(box)
            async with measured() as gaps:
                outcome = await call(box, name="here__t")

    assert (kind(outcome), outcome.attempts) == ("too_large", 1)
    assert gaps.longest < 1


def doubling(levels: int) -> Json:
    """Return a schema whose check takes twice as long with each level."""
    defs: Json = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"required": ["never"]}}}


def tree() -> Json:
    """Return a schema that is recursive, and doubles with each level of the value."""
    node = {"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": ["never"]}] * 2}
    return {"type": "object", **node}


def nested(levels: int) -> Json:
    value: Json = {}
    for _ in range(levels):
        value = {"a": value}
    return value


SLOW = {
    "alternatives": ({"type": "object", **doubling(30)}, {}, "bad_response"),
    "recursion": (tree(), nested(28), "bad_response"),
    "pattern": ({"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}},
                {"a": "a" * 5000 + "!"}, "bad_response"),
    "lookahead": ({"type": "object", "properties": {"a": {"pattern": "^(?=a)(a+)+$"}}},
                  {"a": "a" * 5000 + "!"}, "bad_response"),
    "backreference": ({"type": "object", "properties": {"a": {"pattern": "^(a+)+\\1$"}}},
                      {"a": "a" * 5000 + "!"}, "bad_response"),
    "a legitimate tree": ({"type": "object", "properties": {"a": {"$ref": "#"}}}, nested(9), "ok"),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOW)
async def test_a_servers_schema_of_results_holds_nobody_up(name: str) -> None:
    schema, value, expected = SLOW[name]
    listing = {"tools": [{**TOOL, "outputSchema": schema}]}
    result = {"content": [], "structuredContent": value}
    behaviour = speaks(tools_list=listing, tools_call=result)
    async with upstream(always=behaviour) as up, upstream() as other:
        entry = {"url": f"{up.url}/mcp", "tools": ["t"], "effect": "read", **PATIENT}
        async with toolbox(http_tool(other), servers={"here": entry}) as box:
            await connected(box)
            async with measured() as gaps, anyio.create_task_group() as attack:
                attack.start_soon(call, box, "{}", "here__t")
                victims = [await call(box, f'{{"id": {number}}}') for number in range(20)]
            outcome = await call(box, '{"again": 1}', "here__t")

    assert kind(outcome) == expected
    assert outcome.seconds < CHECK_SECONDS + 5
    assert all(victim.ok for victim in victims)
    assert gaps.longest < 0.5


async def test_parameters_that_are_too_complex_to_check_refuse_their_tool() -> None:
    listing = {"tools": [{**TOOL, "inputSchema": {"type": "object", **doubling(30)}}]}
    async with upstream(always=speaks(tools_list=listing)) as up:
        entry = {"url": f"{up.url}/mcp", "tools": ["t"], "effect": "read"}
        async with toolbox(servers={"here": entry}) as box:
            await connected(box)
            with pytest.raises(Exception, match="isn't JSON Schema"):
                await box.tools["here__t"].load_description()


async def test_a_change_of_the_list_that_is_announced_is_seen_by_the_next_call() -> None:
    other = {"type": "object", "properties": {"b": {"type": "string"}}}
    listings = [{"tools": [TOOL]}]

    async def lists(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await speaks(tools_list=listings[-1])(seen, writer)

    async def announces(seen: Seen, writer: asyncio.StreamWriter) -> None:
        listings.append({"tools": [{**TOOL, "inputSchema": other}]})
        note = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        body = events(note, replied(seen, "tools_call"))
        head = f"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ncontent-length: {len(body)}"
        writer.write(head.encode() + b"\r\n\r\n" + body)

    async with upstream(always=speaks(tools_list=lists, tools_call=announces)) as up:
        entry = {"url": f"{up.url}/mcp", "tools": ["t"], "effect": "read"}
        async with toolbox(servers={"here": entry}) as box:
            await connected(box)
            first = await call(box, name="here__t")
            second = await call(box, '{"n": 2}', "here__t")

    assert first.value == HTTP["tools_call"]["content"][0]["text"]
    assert kind(second) == "precondition_failed"


def test_a_budget_allows_what_was_asked_for_and_little_more() -> None:
    now = [0.0]
    budget = OutputBudget(1000, lambda: now[0], rate=10)

    assert budget.spend(b"x" * 2000)
    assert not budget.spend(b"x")
    budget.expect_response()
    assert budget.spend(b"x" * 900)
    now[0] += 100
    assert budget.spend(b"x" * 1000)
    assert not budget.spend(b"\n" * (1000 // LINE_COST + 2))
