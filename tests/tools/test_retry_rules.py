"""When a call is made again, and who has to wait: by HTTP status, over HTTP and over MCP."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.mcp_over_http import replied, speaks
from support.upstream import (
    Clock,
    Json,
    Seen,
    Upstream,
    call,
    http_tool,
    kind,
    says,
    toolbox,
    until,
    upstream,
    write,
)

pytestmark = pytest.mark.anyio

ONCE = {"retry": {"max_attempts": 1}}


@pytest.mark.parametrize(
    ("status", "retry", "expected"),
    [
        (503, {}, ("unavailable", 1, "unknown")),
        (502, {}, ("unavailable", 1, "unknown")),
        (429, {}, ("ok", 2, "applied")),
        (503, {"not_applied_on": [429, 503]}, ("ok", 2, "applied")),
        (429, {"not_applied_on": []}, ("rate_limited", 1, "not_applied")),
    ],
)
async def test_a_write_is_repeated_after_a_status_only_where_that_means_that_nothing_was_done(
    status: int, retry: Json, expected: tuple[str, int, str]
) -> None:
    async with upstream(says({}, status)) as up:
        async with toolbox(write(up, retry={"base": "1ms", **retry})) as box:
            outcome = await call(box, name="change")

    assert (kind(outcome), outcome.attempts, outcome.effect) == expected
    assert len(up.seen) == outcome.attempts


async def test_a_write_with_a_key_is_repeated_after_503() -> None:
    async with upstream(says({}, 503)) as up:
        async with toolbox(write(up, retry={"base": "1ms"}, idempotency={})) as box:
            outcome = await call(box, name="change")

    assert (kind(outcome), len(up.seen)) == ("ok", 2)


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        ({}, ("ok", 1)),
        ({"pause_scope": "upstream"}, ("rate_limited", 0)),
    ],
)
async def test_a_retry_after_keeps_away_calls_of_its_tool_or_of_the_upstream_where_the_file_says_so(
    retry: Json, expected: tuple[str, int]
) -> None:
    async with upstream(says({}, 429, retry_after="200")) as up:
        fields = {"retry": {"max_attempts": 1, **retry}}
        tools = (http_tool(up, **fields), http_tool(up, "other", "/other", **fields))
        async with toolbox(*tools) as box:
            await call(box)
            same = await call(box, '{"id": 2}')
            other = await call(box, '{"id": 3}', "other")

    assert (kind(same), same.attempts) == ("rate_limited", 0)
    assert (kind(other), other.attempts) == expected


@pytest.mark.parametrize(("fields", "seconds"), [({}, 60), ({"pause_cap": "7s"}, 7)])
async def test_a_huge_retry_after_is_obeyed_for_no_longer_than_the_file_says(
    fields: Json, seconds: float
) -> None:
    clock = Clock()
    async with upstream(says({}, 429, retry_after="99999")) as up:
        retry = {"max_attempts": 1, **fields}
        async with toolbox(http_tool(up, retry=retry), clock=clock) as box:
            await call(box)
            clock.ahead += seconds - 6
            before = await call(box, '{"id": 2}')
            clock.ahead += 6
            after = await call(box, '{"id": 3}')

    assert [kind(before), kind(after)] == ["rate_limited", "ok"]


async def test_a_tool_that_is_slow_by_nature_does_not_open_its_breaker() -> None:
    clock = Clock()

    async def slow(seen: Seen, writer: asyncio.StreamWriter) -> None:
        clock.ahead += 2.5
        await says(1)(seen, writer)

    async with upstream(always=slow) as up, toolbox(http_tool(up), clock=clock) as box:
        kinds = {kind(await call(box, f'{{"id": {number}}}')) for number in range(20)}
        state = box.upstreams[up.url].breaker.state

    assert (kinds, state) == ({"ok"}, "closed")


async def test_slow_calls_open_the_breaker_where_the_file_says_what_is_slow() -> None:
    clock = Clock()

    async def slow(seen: Seen, writer: asyncio.StreamWriter) -> None:
        clock.ahead += 2.5
        await says(1)(seen, writer)

    breaker = {"slow_call": "2s", "min_calls": 3}
    async with upstream(always=slow) as up:
        async with toolbox(http_tool(up, breaker=breaker), clock=clock) as box:
            kinds = [kind(await call(box, f'{{"id": {number}}}')) for number in range(5)]

    assert kinds == ["ok"] * 3 + ["circuit_open"] * 2


def mcp(up: Upstream, **fields: Any) -> Json:
    entry = {"url": f"{up.url}/mcp", "tools": ["t"], "effect": "read", "retry": {"base": "1ms"}}
    return {"servers": {"here": {**entry, **fields}}}


def fails(status: int, body: Any = None, times: int = 1, **headers: str) -> Any:
    """Answer so many calls with a status, then as usual."""
    left = [times]

    async def behave(seen: Seen, writer: asyncio.StreamWriter) -> None:
        left[0] -= 1
        if left[0] >= 0:
            await says(body or {}, status, **headers)(seen, writer)
        else:
            await says(replied(seen, "tools_call"))(seen, writer)

    return behave


ERROR = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "not now"}}


@pytest.mark.parametrize("body", [None, ERROR], ids=["no body", "a JSON-RPC error"])
@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_read_over_mcp_is_tried_again_after_a_status_that_passes(
    status: int, body: Any
) -> None:
    async with upstream(always=speaks(tools_call=fails(status, body))) as up:
        async with toolbox(**mcp(up)) as box:
            outcome = await call(box, name="here__t")
            restarts = box.servers["here"].restarts

    assert (outcome.value, outcome.attempts, restarts) == ("done", 2, 0)


@pytest.mark.parametrize(
    ("status", "effect", "expected"),
    [
        (429, "write", ("ok", 2)),
        (503, "write", ("unavailable", 1)),
        (500, "read", ("upstream_error", 1)),
        (401, "read", ("upstream_rejected", 1)),
    ],
)
async def test_other_statuses_over_mcp_are_told_as_over_http(
    status: int, effect: str, expected: tuple[str, int]
) -> None:
    async with upstream(always=speaks(tools_call=fails(status))) as up:
        async with toolbox(**mcp(up, effect=effect)) as box:
            outcome = await call(box, name="here__t")

    assert (kind(outcome), outcome.attempts) == expected


async def test_a_retry_after_over_mcp_is_told_and_obeyed() -> None:
    behaviour = speaks(tools_call=fails(429, times=9, retry_after="40"))
    async with upstream(always=behaviour) as up, toolbox(**mcp(up)) as box:
        first = await call(box, name="here__t")
        second = await call(box, '{"n": 2}', "here__t")

    assert (kind(first), first.attempts) == ("rate_limited", 1)
    assert first.error is not None
    assert first.error.retry_after == 40
    assert (kind(second), second.attempts) == ("rate_limited", 0)


@pytest.mark.parametrize("body", [None, ERROR], ids=["no body", "a JSON-RPC error"])
@pytest.mark.parametrize("effect", ["read", "write"])
async def test_a_session_that_is_gone_is_opened_anew_and_the_call_made_again(
    effect: str, body: Any
) -> None:
    sessions = ["one"]

    async def initialize(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await says(replied(seen, "initialize"), mcp_session_id=sessions[-1])(seen, writer)

    async def called(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.headers["mcp-session-id"] == sessions[-1]:
            await says(replied(seen, "tools_call"))(seen, writer)
        else:
            await says(body or {}, 404)(seen, writer)

    async with upstream(always=speaks(initialize=initialize, tools_call=called)) as up:
        async with toolbox(**mcp(up, effect=effect)) as box:
            await call(box, name="here__t")
            sessions.append("two")
            outcome = await call(box, '{"n": 2}', "here__t")
            await until(lambda: box.servers["here"].connected)

    assert (outcome.value, outcome.attempts) == ("done", 2)
    assert outcome.effect == ("applied" if effect == "write" else "none")


STUCK = """
import sys, anyio
from falsework.server.tools.config.loader import parse_tools_file
from falsework.server.tools.registry import open_registry
from falsework.server.tools.tool_call import ToolCall

tool = {"name": "sleep", "python": {"callable": "time:sleep", "run_in": "thread"},
        "effect": "read", "parameters": {"type": "object"}, "attempt_timeout": "200ms",
        "retry": {"max_attempts": 1}}

async def main():
    async with open_registry(parse_tools_file({"tools": [tool]})) as registry:
        run = registry.new_run("run", 10)
        print(await run.execute([ToolCall("1", "sleep", "{}")]), flush=True)

anyio.run(main)
"""


def test_a_thread_that_never_returns_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text("import time\n\ndef run():\n    time.sleep(600)\n")
    program = STUCK.replace("time:sleep", "stuck:run")
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        said = ""
        while "ToolResult" not in said and process.poll() is None:
            said = process.stdout.readline()
        began = time.monotonic()
        process.wait(timeout=20)
        took = time.monotonic() - began
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

    assert "timeout" in said
    assert took < 10
