"""Many calls at once, or one after the other: budgets, bulkheads, cancellations, lost answers."""

import asyncio
import math
import random
import time

import anyio
import pytest
from support.upstream import (
    PATIENT,
    call,
    calls,
    connections,
    http_tool,
    kind,
    says,
    toolbox,
    upstream,
)

from falsework.server.tools.results import ToolResult

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("share", "success"), [(0.1, 0.995), (0.3, 0.8)])
async def test_retries_pay_for_faults_without_flooding_the_upstream(
    share: float, success: float, seed: int
) -> None:
    """Every tenth attempt, or three of ten, as chance has it."""
    chance = random.Random(seed)
    script = [says({}, 503) if chance.random() < share else says({}) for _ in range(2000)]
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
    chance = random.Random(26)
    async with upstream(always=says("late", after=0.02)) as up:
        wide = {"bulkhead": {"max_concurrent": 100, "max_queue": 1000}}
        async with toolbox(http_tool(up, breaker={"enabled": False}, **wide)) as box:
            tasks_before = len(asyncio.all_tasks())

            async def leave(number: int, patience: float) -> None:
                with anyio.move_on_after(patience):
                    ended.append(await call(box, f'{{"id": {number}}}'))

            ended: list[ToolResult] = []
            began, usual = time.monotonic(), math.inf
            for start in range(0, 5000, 100):
                async with anyio.create_task_group() as tasks:
                    for number in range(start, start + 100):
                        tasks.start_soon(leave, number, chance.uniform(0, usual))
                usual = min(usual, time.monotonic() - began)  # what the first hundred took
            after = [await call(box, f'{{"id": {-n}}}') for n in range(1, 11)]
            await asyncio.sleep(0.1)
            tasks_after = len(asyncio.all_tasks())
            held = connections(box)

            assert up.open == held <= 100

    assert 100 < len(ended) < 4900, "some were done, and some were not"
    assert all(outcome.ok for outcome in [*ended, *after])
    assert tasks_after - held <= tasks_before
    assert box.tools["look"].bulkhead.in_flight == 0


async def test_a_rate_limit_spreads_attempts_and_refuses_what_cannot_wait() -> None:
    limited = {"rate_limit": {"calls": 2, "per": "300ms"}, "deadline": "500ms"}
    async with upstream() as up, toolbox(http_tool(up, **limited)) as box:
        ends = await calls(box, [("look", f'{{"id": {n}}}') for n in range(4)])
        later = await calls(box, [("look", f'{{"id": {n}}}') for n in range(10, 18)])

    assert [kind(end) for end in ends] == ["ok"] * 4
    assert "rate_limited" in {kind(end) for end in later}
