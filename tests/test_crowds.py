"""Many calls at once, or one after the other: budgets, bulkheads, cancellations, lost answers."""

import asyncio
import json
import time

import anyio
import pytest
from faulty import (
    PATIENT,
    call,
    calls,
    http_tool,
    kind,
    resets,
    says,
    toolbox,
    upstream,
    write,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("share", "success"), [(0.1, 0.995), (0.3, 0.8)])
async def test_retries_pay_for_faults_without_flooding_the_upstream(
    share: float, success: float
) -> None:
    """Every tenth call, or three of ten, in an order that is the same each time."""
    bad = [int(n * share) != int((n + 1) * share) for n in range(2000)]
    script = [says({}, 503) if each else says({}) for each in bad]
    async with upstream(*script) as up, toolbox(http_tool(up, **PATIENT)) as box:
        outcomes = [await call(box, f'{{"id": {n}}}') for n in range(500)]

    assert sum(outcome.ok for outcome in outcomes) / 500 >= success
    assert len(up.seen) <= 1.2 * 500 + 10


async def test_in_an_outage_the_upstream_gets_a_fifth_more_than_its_calls_and_the_burst() -> None:
    async with upstream(always=says({}, 503)) as up, toolbox(http_tool(up, **PATIENT)) as box:
        for n in range(200):
            await call(box, f'{{"id": {n}}}')

    assert len(up.seen) <= 1.2 * 200 + 10


async def test_a_full_bulkhead_rejects_and_leaves_other_tools_alone() -> None:
    full = {"bulkhead": {"max_concurrent": 1, "queue_timeout": "50ms"}}
    async with upstream(always=says("slow", after=0.3)) as up, upstream() as other:
        async with toolbox(http_tool(up, **full), http_tool(other, "quick")) as box:
            asked = [("look", '{"id": 1}'), ("look", '{"id": 2}'), ("quick", "{}")]
            ends = await calls(box, asked)

    assert sorted(kind(end) for end in ends[:2]) == ["ok", "overloaded"]
    assert ends[2].ok
    assert ends[2].seconds < 0.2


async def test_half_of_parallel_calls_may_fail_and_all_are_told_in_order() -> None:
    async with upstream() as up, upstream(always=says({}, 500)) as bad:
        async with toolbox(http_tool(up, "good"), http_tool(bad, "bad")) as box:
            asked = [("good", '{"id": 1}'), ("bad", '{"id": 1}'),
                     ("bad", '{"id": 2}'), ("good", '{"id": 2}')]  # fmt: skip
            ends = await calls(box, asked)

    assert [end.call_id for end in ends] == ["call_0", "call_1", "call_2", "call_3"]
    assert [kind(end) for end in ends] == ["ok", "upstream_error", "upstream_error", "ok"]


async def test_reads_of_one_reply_run_at_once() -> None:
    async with upstream(always=says("late", after=0.5)) as up, toolbox(http_tool(up)) as box:
        begun = time.monotonic()
        ends = await calls(box, [("look", f'{{"id": {n}}}') for n in range(4)])

    assert all(end.ok for end in ends)
    assert time.monotonic() - begun < 0.7


async def test_five_thousand_cancelled_calls_leave_no_task_and_no_connection() -> None:
    async with upstream(always=says("late", after=0.02)) as up:
        wide = {"bulkhead": {"max_concurrent": 100, "max_queue": 1000}}
        async with toolbox(http_tool(up, breaker={"enabled": False}, **wide)) as box:
            tasks_before = len(asyncio.all_tasks())

            async def leave(number: int) -> None:
                with anyio.move_on_after(number % 23 / 1000):
                    await call(box, f'{{"id": {number}}}')

            for start in range(0, 5000, 100):
                async with anyio.create_task_group() as tasks:
                    for number in range(start, start + 100):
                        tasks.start_soon(leave, number)
            after = [await call(box, f'{{"id": {-n}}}') for n in range(10)]
            await asyncio.sleep(0.1)
            tasks_after = len(asyncio.all_tasks())
            servers_own = up.open

    assert all(outcome.ok for outcome in after)
    assert tasks_after - servers_own <= tasks_before + 1
    assert box.tools["look"].bulkhead.in_flight == 0


async def test_ten_thousand_writes_with_lost_answers_are_never_doubled() -> None:
    """Every third answer is lost; the model asks again whenever it is told that it may."""
    lost = [resets if n % 3 == 0 else says("done") for n in range(3000)]
    async with upstream(*lost) as up:
        wide = {
            "bulkhead": {"max_concurrent": 64, "max_queue": 1000},
            "breaker": {"enabled": False},
        }
        async with toolbox(write(up, retry={"base": "0ms"}, **wide)) as box:
            for n in range(2000):
                outcome = await call(box, f'{{"id": {n}}}', "change")
                if json.loads(outcome.text() if not outcome.ok else '{"error": {}}')["error"].get(
                    "retryable"
                ):
                    await call(box, f'{{"id": {n}}}', "change")
    ids = [json.loads(seen.body)["id"] for seen in up.seen]

    assert len(ids) == len(set(ids)) == 2000


async def test_a_rate_limit_spreads_attempts_and_refuses_what_cannot_wait() -> None:
    limited = {"rate_limit": {"calls": 2, "per": "300ms"}, "deadline": "500ms"}
    async with upstream() as up, toolbox(http_tool(up, **limited)) as box:
        ends = await calls(box, [("look", f'{{"id": {n}}}') for n in range(4)])
        later = await calls(box, [("look", f'{{"id": {n}}}') for n in range(10, 18)])

    assert [kind(end) for end in ends] == ["ok"] * 4
    assert "rate_limited" in {kind(end) for end in later}
