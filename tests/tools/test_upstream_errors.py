"""The fault table: what goes wrong upstream, and what the model is told of it."""

import asyncio
import email.utils
import json
import time
from typing import Any

import anyio
import psutil
import pytest
from support.upstream import (
    QUICK,
    Seen,
    Upstream,
    bomb,
    breaks_off,
    call,
    drips,
    hangs,
    http_tool,
    kind,
    resets,
    run,
    says,
    says_bytes,
    toolbox,
    until,
    upstream,
    write,
)

from falsework.server.tools.tool_call import ToolCall

pytestmark = pytest.mark.anyio


async def test_a_slow_read_is_sent_twice_and_the_first_answer_wins() -> None:
    hedge = {"after": "50ms", "floor": "0ms"}
    async with (
        upstream(says(1, after=2), says(2)) as up,
        toolbox(http_tool(up, hedge=hedge)) as box,
    ):
        outcome = await call(box)

        assert outcome.value == 2
        assert len(up.seen) == 2
        assert outcome.seconds < 1


async def test_a_read_that_hangs_is_tried_again_then_answered_by_the_fallback() -> None:
    fallback = [{"value": "unknown", "partial": True}]
    async with upstream(always=hangs) as up:
        async with toolbox(http_tool(up, fallback=fallback, **QUICK)) as box:
            outcome = await call(box)

    assert (outcome.value, outcome.degraded, outcome.fallback) == ("unknown", True, "value")
    assert json.loads(outcome.for_model())["degraded"] is True
    assert len(up.seen) == 3
    assert outcome.seconds < 2.05


@pytest.mark.parametrize("partial", [False, True])
async def test_a_fallback_says_whether_the_reply_is_partial(*, partial: bool) -> None:
    tool = {"fallback": [{"value": "unknown", "partial": partial}], **QUICK}
    async with upstream(always=says({}, 500)) as up, toolbox(http_tool(up, **tool)) as box:
        calling = run(box)
        await calling.execute([ToolCall("call_1", "look", "{}")])

    assert calling.summary()["partial"] is partial


@pytest.mark.parametrize("behaviour", [hangs, resets, breaks_off, says({}, 500), says({}, 502)])
async def test_a_write_whose_answer_never_came_is_not_repeated(behaviour: Any) -> None:
    async with upstream(always=behaviour) as up, toolbox(write(up, **QUICK)) as box:
        outcome = await call(box, name="change")

    assert len(up.seen) == 1
    assert outcome.effect == "unknown"
    error = json.loads(outcome.for_model())["error"]
    assert (error["effect"], error["retryable"]) == ("unknown", False)
    assert error["hint"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("ok", 2)),
        ({"method": "POST"}, ("unavailable", 1)),
        ({"method": "POST", "idempotency": {}}, ("ok", 2)),
    ],
)
async def test_a_connection_that_is_reset_before_a_byte_came_is_tried_again_by_reads_and_keys(
    fields: dict[str, Any], expected: tuple[str, int]
) -> None:
    async with upstream() as up, toolbox(http_tool(up, **fields, retry={"base": "1ms"})) as box:
        up.deaf = 1
        outcome = await call(box)

    assert (kind(outcome), outcome.attempts) == expected
    assert outcome.effect == ("none" if not fields else "applied" if outcome.ok else "unknown")


async def test_a_connection_that_is_refused_is_tried_again_for_writes_too() -> None:
    up = Upstream(port=9)
    async with toolbox(write(up, retry={"base": "1ms"})) as box:
        outcome = await call(box, name="change")

    assert (kind(outcome), outcome.attempts, outcome.effect) == ("unavailable", 3, "not_applied")


async def test_a_write_with_a_key_that_the_upstream_honours_is_repeated_with_the_same_key() -> None:
    async with upstream(resets, says("done")) as up:
        async with toolbox(write(up, idempotency={}, retry={"base": "1ms"})) as box:
            outcome = await call(box, name="change")

    keys = {seen.headers["idempotency-key"] for seen in up.seen}
    assert (outcome.value, outcome.effect, len(up.seen), len(keys)) == ("done", "applied", 2, 1)


async def test_a_retry_after_that_fits_is_waited_for_by_all_callers() -> None:
    pause = says({}, 429, retry_after_ms="300")
    async with upstream(pause) as up, toolbox(http_tool(up)) as box:
        begun = time.monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, box, '{"id": 1}')
            await until(lambda: up.seen)
            await anyio.sleep(0.1)
            other = await call(box, '{"id": 2}')
            waited = time.monotonic() - begun

    assert other.ok
    assert waited >= 0.3
    assert box.upstreams[up.url].breaker.state == "closed"


async def test_a_retry_after_that_is_too_long_is_told_at_once() -> None:
    async with upstream(says({}, 429, retry_after="60")) as up, toolbox(http_tool(up)) as box:
        outcome = await call(box)
        error = outcome.envelope()["error"]

        assert (error["type"], error["retryable"]) == ("rate_limited", True)
        assert 59_000 <= error["retry_after_ms"] <= 60_000
        assert outcome.seconds < 0.1


async def test_a_retry_after_that_is_a_date_is_waited_for() -> None:
    async def soon(seen: Seen, writer: asyncio.StreamWriter) -> None:
        ends_at.append(float(int(time.time()) + 1))
        said = email.utils.formatdate(ends_at[0], usegmt=True)
        await says({}, 429, retry_after=said)(seen, writer)

    ends_at: list[float] = []
    async with upstream(soon) as up, toolbox(http_tool(up, retry={"base": "0ms"})) as box:
        outcome = await call(box)
        ended = time.time()

    assert (outcome.ok, outcome.attempts) == (True, 2)
    assert ends_at[0] <= ended < ends_at[0] + 0.5


@pytest.mark.parametrize("said", ["soon", "-5", "\u0661", "", "1e3", "Mon, 99 Foo 2026 00:00 GMT"])
async def test_a_retry_after_that_says_nothing_leaves_the_usual_pause(said: str) -> None:
    retry = {"base": "10ms"}
    async with upstream(says({}, 429, retry_after=said)) as up:
        async with toolbox(http_tool(up, retry=retry)) as box:
            outcome = await call(box)

    assert (outcome.ok, outcome.attempts) == (True, 2)
    assert outcome.backoff <= 0.01


async def test_an_upstream_that_only_fails_is_left_alone_from_the_tenth_call_on() -> None:
    async with upstream(always=says({}, 500)) as up, toolbox(http_tool(up)) as box:
        first = [kind(await call(box, f'{{"id": {n}}}')) for n in range(10)]
        reached = len(up.seen)
        begun = time.monotonic()
        after = [kind(await call(box, f'{{"id": {n}}}')) for n in range(100)]
        each = (time.monotonic() - begun) / 100

    assert first == ["upstream_error"] * 10
    assert after == ["circuit_open"] * 100
    assert len(up.seen) == reached
    assert each < 0.005


async def test_an_open_breaker_falls_back_to_a_replica_and_then_to_an_old_result() -> None:
    fallback = [{"tool": "replica"}, {"stale": True}]
    cache = {"stale_if_error": "1m"}
    async with upstream(says("fresh"), always=says({}, 500)) as up:
        async with upstream(says("copy"), always=says({}, 500)) as other:
            looked = http_tool(up, fallback=fallback, cache=cache)
            replica = http_tool(other, "replica", expose=False)
            async with toolbox(looked, replica) as box:
                ends = [await call(box) for _ in range(3)]

    assert [end.value for end in ends] == ["fresh", "copy", "fresh"]
    assert [end.fallback for end in ends] == ["none", "replica", "stale"]


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (says_bytes(b"{", content_type="application/json"), "bad_response"),
        (says_bytes(b'"\\ud800"'), "bad_response"),
        (says_bytes(b'"\xed\xa0\x80"'), "bad_response"),
        (says_bytes(b"NaN"), "bad_response"),
        (says_bytes(b"1e999"), "bad_response"),
        (says_bytes(b"[" * 100_000), "bad_response"),
        (says_bytes(b"x", content_encoding="gzip"), "bad_response"),
        (says_bytes(b"x", content_encoding="zstd"), "bad_response"),
        (says_bytes(b"[" * 40 + b"]" * 40), "bad_response"),
        (says("no number"), "bad_response"),
        (says_bytes(b"1" * 300_000), "too_large"),
        (says_bytes(b"1" * 300_000, content_type="text/event-stream"), "too_large"),
        (bomb(50 * 2**20), "too_large"),
        (says({"why": "gone"}, 404), "upstream_rejected"),
        (says({}, 302, location="http://169.254.169.254/"), "blocked_egress"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_not_asked_for_again(
    behaviour: Any, expected: str
) -> None:
    schema = {"type": "integer"}
    async with upstream(always=behaviour) as up:
        async with toolbox(http_tool(up, result_schema=schema)) as box:
            outcome = await call(box)

    assert (kind(outcome), len(up.seen)) == (expected, 1)


async def test_what_is_wrong_with_an_answer_is_pointed_at() -> None:
    schema = {
        "type": "object",
        "properties": {"a/~b": {"type": "array", "items": {"type": "integer"}}},
    }
    async with upstream(says({"a/~b": [1, "x"]})) as up:
        async with toolbox(http_tool(up, result_schema=schema)) as box:
            outcome = await call(box)

    assert outcome.error is not None
    assert [detail["pointer"] for detail in outcome.error.details] == ["/a~1~0b/1"]


@pytest.mark.parametrize(("score", "expected"), [(250, "bad_response"), (99, "ok")])
async def test_a_tool_that_lies_is_believed_within_the_bounds_that_the_file_gives(
    score: int, expected: str
) -> None:
    schema = {"type": "object", "properties": {"score": {"type": "integer", "maximum": 100}}}
    async with upstream(says({"score": score})) as up:
        async with toolbox(http_tool(up, result_schema=schema)) as box:
            outcome = await call(box)

    assert kind(outcome) == expected


async def test_an_answer_that_is_too_large_is_never_held() -> None:
    process = psutil.Process()
    async with upstream(always=bomb(200 * 2**20)) as up, toolbox(http_tool(up)) as box:
        await call(box)
        before = process.memory_info().rss
        for n in range(5):
            assert kind(await call(box, f'{{"id": {n}}}')) == "too_large"

    assert process.memory_info().rss - before < 20 * 2**20


async def test_an_answer_that_drips_is_cut_at_the_deadline() -> None:
    fields = {"deadline": "300ms", "attempt_timeout": "5s"}
    async with upstream(always=drips) as up, toolbox(http_tool(up, **fields)) as box:
        outcome = await call(box)

    assert kind(outcome) == "timeout"
    assert 0.29 < outcome.seconds < 0.36


@pytest.mark.parametrize("behaviour", [breaks_off, resets])
async def test_a_read_whose_answer_breaks_off_is_tried_again(behaviour: Any) -> None:
    async with upstream(behaviour, says("whole")) as up, toolbox(http_tool(up)) as box:
        outcome = await call(box)

    assert (outcome.value, outcome.attempts) == ("whole", 2)
