"""Writes whose answer never came: what is known of them, and that nobody repeats them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.upstream import (
    Json,
    Seen,
    Upstream,
    call,
    hangs,
    http_tool,
    kind,
    resets,
    run,
    says,
    says_bytes,
    toolbox,
    upstream,
)

from falsework.server.tools.errors import ToolCallError, is_ambiguous
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import ToolCall

pytestmark = pytest.mark.anyio

KEYED = {"idempotency": {}, "retry": {"base": "1ms"}}
VERIFY = {"tool": "look", "arguments": {"id": "{id}"}, "matches": "result.version == args.id"}
QUICK = {"attempt_timeout": "200ms", "deadline": "2s"}


def write(up: Upstream, **fields: Any) -> Json:
    return http_tool(up, "change", "/change", method="POST", **fields)


def told(outcome: ToolResult) -> tuple[str, bool]:
    error = outcome.envelope().get("error", {"effect": outcome.effect, "retryable": None})
    return error["effect"], error["retryable"]


@pytest.mark.parametrize(("after", "last"), [(503, "unavailable"), (409, "upstream_rejected")])
async def test_what_an_upstream_says_later_takes_no_doubt_away(after: int, last: str) -> None:
    async with upstream(resets, always=says({}, after)) as up:
        async with toolbox(write(up, **KEYED)) as box:
            outcome = await call(box, name="change")

    assert kind(outcome) == last
    assert told(outcome) == ("unknown", False)


async def test_a_breaker_that_opens_between_attempts_takes_no_doubt_away() -> None:
    async with upstream(always=resets) as up:
        async with toolbox(write(up, **KEYED, breaker={"min_calls": 1})) as box:
            outcome = await call(box, name="change")

    assert kind(outcome) == "circuit_open"
    assert told(outcome) == ("unknown", False)


async def test_a_key_that_succeeds_at_last_settles_what_was_in_doubt() -> None:
    async with upstream(resets, says({}, 503), says("done")) as up:
        async with toolbox(write(up, **KEYED)) as box:
            outcome = await call(box, name="change")

    assert (outcome.value, outcome.effect) == ("done", "applied")


@pytest.mark.parametrize(
    ("answer", "effect"),
    [
        (says({}, 303, location="/done"), "unknown"),
        (says({}, 500), "unknown"),
        (says({}, 504), "unknown"),
        (says_bytes(b"{"), "unknown"),
        (says_bytes(b" " * 300_000), "unknown"),
        (says({}, 404), "not_applied"),
        (says({}, 429), "not_applied"),
        (says({}, 503), "unknown"),
    ],
)
async def test_only_an_upstream_that_said_no_did_nothing(answer: Any, effect: str) -> None:
    async with upstream(answer) as up:
        async with toolbox(write(up, retry={"max_attempts": 1})) as box:
            outcome = await call(box, name="change")

    assert outcome.effect == effect


def test_an_mcp_server_that_broke_may_have_acted() -> None:
    assert is_ambiguous(
        ToolCallError("upstream_rejected", "Internal error", sent=True, code=-32603)
    )
    assert not is_ambiguous(
        ToolCallError("upstream_rejected", "Invalid params", sent=True, code=-32602)
    )


@pytest.mark.parametrize(
    ("name", "arguments", "effect"),
    [
        ("write_and_fail", {"path": "{folder}/f"}, "unknown"),
        ("refuse", {"why": "not today"}, "not_applied"),
    ],
)
async def test_a_function_that_breaks_may_have_acted_and_one_that_refuses_has_not(
    name: str, arguments: Json, effect: str, tmp_path: Path
) -> None:
    text = json.dumps(arguments).replace("{folder}", str(tmp_path))
    python = {"callable": f"support.python_tools:{name}"}
    async with toolbox({"name": name, "parameters": {"type": "object"}, "python": python}) as box:
        outcome = await call(box, text, name)

    assert (kind(outcome), outcome.effect) == ("tool_error", effect)


async def verifying(
    *script: Any, look: Json | None = None, before: bool = False, **fields: Any
) -> ToolResult:
    """Let a write go wrong, with a verification; `before` reads once beforehand."""
    verify = {**VERIFY, **fields.pop("verify", {})}
    async with upstream(*script) as up:
        change = write(up, verify=verify, **{**QUICK, **fields})
        async with toolbox(http_tool(up, **(look or {})), change) as box:
            if before:
                await call(box, '{"id": 2}')
            return await call(box, '{"id": 2}', "change")


@pytest.mark.parametrize(("found", "effect"), [(2, "applied"), (1, "not_applied")])
async def test_what_became_of_a_write_is_found_out_by_a_read(found: int, effect: str) -> None:
    verify = {"tool": "look", "arguments": {"id": "{id}"}, "matches": "result.version == args.id"}
    async with upstream(resets, says({"version": found})) as up:
        async with toolbox(http_tool(up), write(up, verify=verify)) as box:
            outcome = await call(box, '{"id": 2}', "change")

    assert (outcome.effect, outcome.ok) == (effect, effect == "applied")
    assert [seen.method for seen in up.seen] == ["POST", "GET"]


async def test_a_verification_looks_at_what_is_there_and_not_at_what_was_kept() -> None:
    script = [says({"version": 1}), resets, says({"version": 2})]

    outcome = await verifying(*script, look={"cache": {"ttl": "30s"}}, before=True)

    assert outcome.effect == "applied"


@pytest.mark.parametrize("fallback", [{"stale": True}, {"value": {"version": 1}}])
async def test_a_verification_believes_no_fallback(fallback: Json) -> None:
    look = {
        "cache": {"stale_if_error": "10m"},
        "fallback": [fallback],
        "retry": {"max_attempts": 1},
    }

    outcome = await verifying(says({"version": 1}), resets, says({}, 500), look=look, before=True)

    assert told(outcome) == ("unknown", False)


async def test_a_verification_reads_results_whole() -> None:
    seen = says({"padding": "x" * 50_000, "version": 2})

    outcome = await verifying(resets, seen, look={"limits": {"max_result_chars": 100}})

    assert outcome.effect == "applied"


@pytest.mark.parametrize(
    ("result", "matches"),
    [
        ("maintenance", "result.version > args.id"),
        ({}, "result.version"),
        ({"version": "2"}, "result.version > args.id"),
        ({"version": [2]}, "contains(result.version[0], 'x')"),
    ],
)
async def test_a_condition_that_is_neither_true_nor_false_decides_nothing(
    result: Any, matches: str
) -> None:
    outcome = await verifying(resets, says(result), verify={"matches": matches})

    assert told(outcome) == ("unknown", False)


@pytest.mark.parametrize("late", [hangs, says({}, 504)])
async def test_a_write_that_may_act_yet_is_not_called_undone(late: Any) -> None:
    outcome = await verifying(late, says({"version": 1}))

    assert told(outcome) == ("unknown", False)


async def test_a_write_that_acts_after_its_timeout_is_not_doubled() -> None:
    version = 1

    async def acts_late(_: Seen, __: asyncio.StreamWriter) -> None:
        nonlocal version
        await asyncio.sleep(0.4)
        version += 1

    async def shows(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await says({"version": version})(seen, writer)

    async with upstream(acts_late, always=shows) as up:
        async with toolbox(http_tool(up), write(up, verify=VERIFY, **QUICK)) as box:
            chain = run(box)
            first, again = [
                (await chain.execute([ToolCall(n, "change", '{"id": 2}')]))[0] for n in ("1", "2")
            ]
            await anyio.sleep(0.4)

    assert [told(one) for one in (first, again)] == [("unknown", False)] * 2
    assert version == 2


async def test_a_write_that_hung_and_is_seen_to_be_done_is_done() -> None:
    outcome = await verifying(hangs, says({"version": 2}))

    assert (outcome.ok, outcome.effect) == (True, "applied")
    assert outcome.seconds < 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(says("done"), ("ok", "applied")), (resets, ("unavailable", "unknown"))],
)
async def test_what_another_tool_wrote_instead_counts(answer: Any, expected: Any) -> None:
    nowhere = Upstream(port=9)
    fallback = [{"tool": "other"}, {"value": "queued"}]
    async with upstream(answer) as up:
        change = write(nowhere, retry={"max_attempts": 1}, fallback=fallback)
        async with toolbox(change, http_tool(up, "other", method="POST")) as box:
            outcome = await call(box, name="change")

    assert (kind(outcome), outcome.effect) == expected
    assert len(up.seen) == 1


async def test_a_write_in_doubt_is_told_as_such_whatever_could_answer_instead() -> None:
    fallback = [{"value": "queued"}]
    async with upstream(resets) as up, toolbox(write(up, fallback=fallback)) as box:
        outcome = await call(box, name="change")

    assert told(outcome) == ("unknown", False)
    assert "Check" in outcome.for_model()
