"""The layers round a tool: in which order they say no, how soon, and of whom they believe what."""

import asyncio
import time
from typing import Any

import anyio
import pytest
from support.upstream import (
    Clock,
    Json,
    Seen,
    call,
    calls,
    connections,
    hangs,
    http_tool,
    kind,
    run,
    says,
    toolbox,
    upstream,
)

from falsework.server.tools.deadline import Deadline
from falsework.server.tools.retries import MIN_LATENCY_SAMPLES
from falsework.server.tools.tool_call import ToolCall

pytestmark = pytest.mark.anyio

ONCE = {"retry": {"max_attempts": 1}}


def numbered(count: int, first: int = 0) -> list[tuple[str, str]]:
    return [("look", f'{{"id": {n}}}') for n in range(first, first + count)]


async def test_requests_without_time_do_not_open_the_breaker_for_others() -> None:
    async with upstream(always=says(1, after=0.15)) as up, toolbox(http_tool(up)) as box:
        ends = [await call(box, f'{{"id": {n}}}', seconds=0.1) for n in range(12)]
        after = await call(box, '{"id": 99}')

    assert {kind(end) for end in ends} == {"timeout"}
    assert after.ok


async def test_an_upstream_that_misses_its_own_timeout_is_left_alone() -> None:
    slow = {"attempt_timeout": "250ms", "breaker": {"min_calls": 2}, **ONCE}
    async with upstream(always=hangs) as up, toolbox(http_tool(up, **slow)) as box:
        ends = [kind(await call(box, f'{{"id": {n}}}')) for n in range(3)]

    assert ends == ["timeout", "timeout", "circuit_open"]


async def test_an_open_breaker_refuses_at_once_whatever_the_rate_limit_and_the_gate_say() -> None:
    fields = {"rate_limit": {"calls": 3, "per": "5s"}, "breaker": {"min_calls": 2}, **ONCE}
    async with upstream(always=says({}, 500)) as up, toolbox(http_tool(up, **fields)) as box:
        for n in range(2):
            await call(box, f'{{"id": {n}}}')
        box.upstreams[up.url].pause.start(3)
        ends = [await call(box, f'{{"id": {n}}}') for n in range(5, 25)]

    assert {kind(end) for end in ends} == {"circuit_open"}
    assert len(up.seen) == 2
    assert sorted(end.seconds for end in ends)[10] <= 0.005


async def test_an_open_breaker_falls_back_at_once() -> None:
    fields = {"breaker": {"min_calls": 1}, "fallback": [{"value": "constant"}], **ONCE}
    async with upstream(always=says({}, 500)) as up, toolbox(http_tool(up, **fields)) as box:
        ends = [await call(box, f'{{"id": {n}}}') for n in range(20)]

    assert {end.fallback for end in ends} == {"value"}
    assert len(up.seen) == 1
    assert sorted(end.seconds for end in ends)[10] <= 0.005


async def test_exactly_one_of_fifty_callers_reaches_an_upstream_on_probation() -> None:
    fields, clock = {"breaker": {"min_calls": 1}, **ONCE}, Clock()
    many = {"bulkhead": {"max_concurrent": 50}}
    file = {"request": {"max_parallel": 50, "max_tool_calls": 50}}
    async with upstream(says({}, 500), always=says(1, after=0.1)) as up:
        async with toolbox(http_tool(up, **fields, **many), clock=clock, **file) as box:
            await call(box)
            clock.ahead += 10
            ends = await calls(box, numbered(50, 1))

    assert sorted(map(kind, ends)) == ["circuit_open"] * 49 + ["ok"]
    assert len(up.seen) == 2


async def test_a_probe_that_is_cancelled_makes_room_for_the_next_caller() -> None:
    fields, clock = {"breaker": {"min_calls": 1}, **ONCE}, Clock()
    async with upstream(says({}, 500), says(1, after=1), always=says(2)) as up:
        async with toolbox(http_tool(up, **fields), clock=clock) as box:
            await call(box)
            clock.ahead += 10
            with anyio.move_on_after(0.05):
                await call(box, '{"id": 1}')
            state = box.upstreams[up.url].breaker.state
            after = await call(box, '{"id": 2}')

    assert (state, after.value, len(up.seen)) == ("half_open", 2, 3)


async def test_who_waited_for_an_upstream_does_not_storm_it() -> None:
    """It goes on to say that it wants a pause: whoever hears that first, spares it the others."""
    file = {"request": {"max_parallel": 20, "max_tool_calls": 20}}
    async with upstream(always=says({}, 429, retry_after_ms="300")) as up:
        async with toolbox(http_tool(up, **ONCE), **file) as box:
            await call(box, '{"id": 100}')
            with anyio.move_on_after(0.45):
                await calls(box, numbered(20))

    assert 2 <= len(up.seen) <= 12


async def test_an_upstream_cannot_close_itself_for_years() -> None:
    async with upstream(says({}, 429, retry_after="999999999")) as up:
        async with toolbox(http_tool(up)) as box:
            await call(box)
            outcome = await call(box, '{"id": 2}')

    assert kind(outcome) == "rate_limited"
    assert outcome.envelope()["error"]["retry_after_ms"] <= 300_000


async def test_each_tool_of_an_upstream_has_its_own_rate_limit() -> None:
    limited = {"rate_limit": {"calls": 1, "per": "60s"}, "deadline": "200ms"}
    async with upstream() as up:
        async with toolbox(http_tool(up, "free"), http_tool(up, **limited)) as box:
            ends = [kind(await call(box, f'{{"id": {n}}}')) for n in range(2)]
            free = [kind(await call(box, f'{{"id": {n}}}', "free")) for n in range(3)]

    assert ends == ["ok", "rate_limited"]
    assert free == ["ok"] * 3


async def test_who_may_not_queue_is_served_all_the_same_where_there_is_room() -> None:
    bulkhead = {"queue_timeout": "0ms", "max_concurrent": 1}
    async with upstream(always=says(1, after=0.05)) as up:
        async with toolbox(http_tool(up, bulkhead=bulkhead)) as box:
            ends = await calls(box, numbered(2))

    assert sorted(map(kind, ends)) == ["ok", "overloaded"]


async def test_a_deadline_that_has_passed_is_told_as_such() -> None:
    async with upstream() as up, toolbox(http_tool(up)) as box:
        chain = run(box)
        chain.deadline = Deadline.after(-1)
        (outcome,) = await chain.execute([ToolCall("1", "look", "{}")])

    assert (kind(outcome), up.seen) == ("deadline_exhausted", [])


@pytest.mark.parametrize("also", [{}, {"fallback": [{"tool": "other"}, {"value": "constant"}]}])
async def test_a_tool_that_hangs_ends_at_its_deadline_with_all_that_could_answer_instead(
    also: Json,
) -> None:
    quick = {"deadline": "400ms", "attempt_timeout": "1s"}
    async with upstream(always=hangs) as up:
        other = http_tool(up, "other", deadline="2s", attempt_timeout="2s")
        async with toolbox(http_tool(up, **quick, **also), other) as box:
            began = time.monotonic()
            outcome = await call(box)
            took = time.monotonic() - began

    assert took <= 0.4 + 0.05
    assert (kind(outcome), outcome.value) == (("ok", "constant") if also else ("timeout", None))
    assert len(up.seen) == (2 if also else 1)


async def test_a_kept_result_is_cut_as_a_fresh_one_is() -> None:
    async with upstream(says("x" * 50_000)) as up:
        async with toolbox(http_tool(up, cache={"ttl": "1m"})) as box:
            first, second = [await call(box), await call(box)]

    assert first.for_model() == second.for_model()
    assert (second.truncated, len(up.seen)) == (True, 1)


@pytest.mark.parametrize(
    ("cache", "kept"), [({}, 0), ({"ttl": "1s"}, 1), ({"stale_if_error": "1s"}, 1)]
)
async def test_results_are_kept_only_where_the_file_says_so(cache: Json, kept: int) -> None:
    async with upstream() as up, toolbox(http_tool(up, cache=cache)) as box:
        await call(box)
        store: Any = box.tools["look"]._cache

    assert len(store) == kept


async def test_the_second_copy_of_a_read_is_paid_for_and_the_loser_is_given_up() -> None:
    hedge = {"hedge": {"after": "50ms", "floor": "0ms"}}
    async with upstream(says(1, after=2), says(2)) as up:
        async with toolbox(http_tool(up, **hedge)) as box:
            outcome = await call(box)
            await anyio.sleep(0.05)
            left = box.upstreams[up.url].budget.tokens

            assert (outcome.value, len(up.seen), up.open) == (2, 2, 2)
            assert left == 10 - 1
            assert box.tools["look"].bulkhead.in_flight == 0
            assert connections(box) == 1, "that of the loser is closed"

    async with upstream(always=says(1, after=0.1)) as up:
        async with toolbox(http_tool(up, **hedge, retry_budget={"burst": 0})) as box:
            await call(box)

    assert len(up.seen) == 1


async def test_a_second_copy_waits_for_what_most_answers_take() -> None:
    clock = Clock()

    async def takes_300_ms(seen: Seen, writer: asyncio.StreamWriter) -> None:
        clock.ahead += 0.3
        await says(2)(seen, writer)

    hedge = {"after": "p95", "floor": "100ms"}
    async with upstream(always=takes_300_ms) as up:
        async with toolbox(http_tool(up, hedge=hedge), clock=clock) as box:
            for number in range(MIN_LATENCY_SAMPLES):
                await call(box, f'{{"id": {number}}}')
            typical = len(up.seen)
            up.script = [says(1, after=5)]
            slow = await call(box, '{"id": 100}')

    assert typical == MIN_LATENCY_SAMPLES
    assert (slow.value, len(up.seen)) == (2, MIN_LATENCY_SAMPLES + 2)
    assert 0.3 <= slow.seconds < 2
