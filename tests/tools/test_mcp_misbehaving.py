"""MCP servers that don't keep to the protocol: what is told of them, and who else is hurt."""

import asyncio
import gzip
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from support.mcp_over_http import replied, speaks
from support.misbehaving_mcp_server import TOOL
from support.upstream import (
    Behaviour,
    Json,
    Seen,
    bomb,
    call,
    hangs,
    kind,
    says,
    says_bytes,
    toolbox,
    until,
    upstream,
)

from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext
from falsework.server.tools.executors.mcp import McpClient
from falsework.server.tools.executors.mcp_http import http_transport
from falsework.server.tools.executors.mcp_link import TransportFactory
from falsework.server.tools.executors.mcp_stdio import StdioServer
from falsework.server.tools.redaction import Redactor

pytestmark = pytest.mark.anyio

SCRIPT = str(Path(__file__).parents[1] / "support" / "misbehaving_mcp_server.py")


def rough(script: Json | None = None, **fields: Any) -> Json:
    command = [sys.executable, SCRIPT, json.dumps(script or {})]
    return {"command": command, "tools": ["t"], "effect": "read", **fields}


@pytest.mark.parametrize("key", ["inputSchema", "outputSchema"])
@pytest.mark.parametrize(
    "schema", [{"$ref": "http://127.0.0.1:PORT/"}, {"properties": {"a": {"type": "objekt"}}}]
)
async def test_a_schema_that_is_none_is_refused_and_what_it_names_is_not_fetched(
    schema: Json, key: str
) -> None:
    async with upstream(always=says({"type": "object"})) as up:
        text = json.dumps({"type": "object", **schema}).replace("PORT", str(up.port))
        tool = {**TOOL, key: json.loads(text)}
        async with toolbox(servers={"here": rough({"tools/list": {"tools": [tool]}})}) as box:
            with pytest.raises(ToolCallError) as caught:
                await box.tools["here__t"].load_description()

    assert (caught.value.kind, up.seen) == ("bad_response", [])


def raw(result: str) -> str:
    return f'{{"jsonrpc": "2.0", "id": ID, "result": {result}}}'


ASKS = {
    "server/discover": {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "ttlMs": 0,
        "cacheScope": "public",
    },
    "tools/list": {"resultType": "complete", "tools": [TOOL], "ttlMs": 0, "cacheScope": "public"},
    "tools/call": {"resultType": "input_required", "requestState": "s"},
}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"tools/call": {"content": 5}}, "bad_response"),
        ({"tools/call": raw('{"content": [], "structuredContent": {"x": NaN}}')}, "bad_response"),
        ({"tools/call": {"content": [], "structuredContent": {"x": "y" * 5000}}}, "too_large"),
        ({"tools/call": {"content": [{"type": "text", "text": "y" * 5000}]}}, "too_large"),
        ({"tools/call": {"error": {"code": -32602, "message": "a is odd"}}}, "invalid_arguments"),
        ({"tools/call": {"error": {"code": -32603, "message": "oh"}}}, "upstream_error"),
        ({"tools/call": {"error": {"code": -32050, "message": "no"}}}, "upstream_rejected"),
        ({"tools/call": {"error": {"code": -32000, "message": "no"}}}, "upstream_error"),
        ({"tools/call": {"content": [], "isError": True}}, "tool_error"),
        (ASKS, "precondition_failed"),
    ],
)
async def test_an_answer_that_is_none_is_told_once_and_the_connection_is_kept(
    said: Json, expected: str
) -> None:
    limits = {"max_response_bytes": "1KiB"}
    async with toolbox(servers={"here": rough(said, limits=limits)}) as box:
        outcomes = [await call(box, f'{{"n": {n}}}', "here__t") for n in range(2)]
        restarts = box.servers["here"].restarts

    assert [(kind(one), one.attempts) for one in outcomes] == [(expected, 1)] * 2
    assert restarts == 0


async def test_an_answer_that_does_not_satisfy_the_servers_own_schema_is_a_bad_one() -> None:
    output = {"type": "object", "required": ["score"]}
    said = {"tools/list": {"tools": [{**TOOL, "outputSchema": output}]},
            "tools/call": {"content": [], "structuredContent": {}}}  # fmt: skip
    async with toolbox(servers={"here": rough(said)}) as box:
        outcome = await call(box, name="here__t")

    assert (kind(outcome), outcome.attempts) == ("bad_response", 1)


@asynccontextmanager
async def supervised(connect: TransportFactory, **fields: Any) -> AsyncIterator[McpClient]:
    server = McpClient("here", connect, **fields)
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.supervise)
        yield server
        tasks.cancel_scope.cancel()


def command(script: Json) -> TransportFactory:
    words = [sys.executable, SCRIPT, json.dumps(script)]
    return StdioServer("here", words, {}, ".", 2**20, Redactor()).connect


async def test_a_server_that_hangs_at_the_start_is_started_again() -> None:
    async with upstream(always=hangs) as up:
        connect = http_transport(
            f"{up.url}/mcp",
            httpx2.AsyncHTTPTransport,
            lambda transport: httpx2.AsyncClient(transport=transport),
            2**20,
        )
        async with supervised(connect, start_timeout=0.1) as server:
            await until(lambda: server.restarts >= 1)


async def test_a_server_that_lists_its_tools_and_dies_is_left_alone_for_longer_each_time() -> None:
    async with supervised(command({"after": "tools/list"})) as server:
        with anyio.move_on_after(2):
            while True:
                with suppress(ToolCallError):
                    await server.call_tool("t", {}, AttemptContext(Deadline.after(5), "call_1"))

        assert 1 <= server.restarts <= 4  # after 0.2, 0.4, 0.8 seconds


async def test_a_server_that_dies_between_calls_is_there_again_before_the_next() -> None:
    entry = rough({"after": "tools/call"}, effect="write")
    async with toolbox(servers={"here": entry}) as box:
        for number in range(2):
            outcome = await call(box, f'{{"n": {number}}}', "here__t")
            assert (outcome.value, outcome.attempts) == ("done", 1)
            await until(lambda n=number: box.servers["here"].restarts > n)


async def test_a_list_of_tools_that_has_no_end_is_none() -> None:
    endless = {"tools": [TOOL], "nextCursor": "more"}
    async with supervised(command({"tools/list": endless})) as server:
        with pytest.raises(ToolCallError, match="can't be reached"):
            await server.list_tools(Deadline.after(1))

        assert not server.tools


async def test_a_connection_that_was_lost_long_ago_does_not_cost_the_next_one() -> None:
    ticket = AttemptContext(Deadline.after(20), "call_1")
    async with supervised(command({"tools/call": "die"})) as server:
        first = await server._wait_connected(ticket.deadline)
        with pytest.raises(ToolCallError):
            await server.call_tool("t", {}, ticket)
        second = await server._wait_connected(ticket.deadline)
        server._drop(first)

        assert await server._wait_connected(ticket.deadline) is second
        assert server.restarts == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (bomb(50 * 2**20), "too_large"),
        (says_bytes(b" " * 2**21), "too_large"),
        (says_bytes(gzip.compress(b"{"), content_encoding="gzip"), "bad_response"),
        (says_bytes(b"x", content_encoding="br"), "bad_response"),
        (says_bytes(b"[" * 100_000), "bad_response"),
        (says_bytes(b'{"jsonrpc": "2.0", "id": 3, "result": {"x": "\\ud800"}}'), "bad_response"),
        (says_bytes(b"<html>", content_type="text/html"), "upstream_rejected"),
        (says({}, 500), "upstream_error"),
    ],
)
async def test_a_body_that_cannot_be_used_is_cut_and_told_over_http_too(
    answer: Behaviour, expected: str
) -> None:
    async with upstream(always=speaks(tools_call=answer)) as up:
        entry = {"url": f"{up.url}/mcp", "tools": ["t"], "effect": "read"}
        async with toolbox(servers={"here": entry}) as box:
            outcomes = [await call(box, f'{{"n": {n}}}', "here__t") for n in range(2)]
            restarts = box.servers["here"].restarts

    assert [(kind(one), one.attempts) for one in outcomes] == [(expected, 1)] * 2
    assert restarts == 0


async def test_a_server_that_has_forgotten_the_session_is_asked_anew() -> None:
    current = ["one"]

    async def initialize(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await says(replied(seen, "initialize"), mcp_session_id=current[-1])(seen, writer)

    async def called(seen: Seen, writer: asyncio.StreamWriter) -> None:
        known = seen.headers["mcp-session-id"] == current[-1]
        await says(replied(seen, "tools_call"), 200 if known else 404)(seen, writer)

    async with upstream(always=speaks(initialize=initialize, tools_call=called)) as up:
        entry = {"url": f"{up.url}/mcp", "tools": ["t"], "effect": "write"}
        async with toolbox(servers={"here": entry}) as box:
            before = await call(box, '{"n": 1}', "here__t")
            current.append("two")
            after = await call(box, '{"n": 2}', "here__t")

    assert (before.value, after.value, after.attempts) == ("done", "done", 2)
