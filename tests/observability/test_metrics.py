"""What is seen from outside: every metric and span by its name, phases that sum, nothing secret."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from support.chat_bodies import Json
from support.clients import CHAT, HELLO, sent
from support.scripted_app import SETTINGS, calls, eventually, scaffold_of
from support.tool_app import an_upstream, house_of, metrics_of
from support.upstream import PATIENT, call, http_tool, kind, run, says, toolbox, upstream, write

from falsework.server.generation.turn import TurnBuilder
from falsework.server.observability import telemetry
from falsework.server.tools.config.policies import ToolPolicy
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext, ToolDescription
from falsework.server.tools.resilience.upstream import Upstream
from falsework.server.tools.retries import CallState, Retrier
from falsework.server.tools.tool_call import ToolCall

LOOK = {"type": "server_tool", "name": "look"}


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


def asked(**fields: object) -> Json:
    return {**HELLO, "tools": [LOOK], **fields}


def test_a_request_with_tools_is_counted_in_every_part(scaffold: TurnBuilder) -> None:
    with an_upstream(says({}, 503), says("fine")) as up:
        file = {"tools": [http_tool(up)]}
        with house_of(scaffold, calls(("look", "{}")), "Fine.", file=file) as house:
            before = metrics_of(house)
            sent(house, "POST", CHAT, asked())
            after = metrics_of(house)

    def grew(sample: str) -> float:
        return after.get(sample, 0) - before.get(sample, 0)

    grown = {name: after[name] - before.get(name, 0) for name in after}
    (count,) = [value for name, value in grown.items()
                if name.startswith("falsework_tool_calls_total{") and value]  # fmt: skip
    assert count == 1
    assert grew('falsework_tool_retries_total{reason="503",tool="look"}') == 1
    assert grew('falsework_request_model_turns_sum{model="smollm2"}') == 2
    assert grew('falsework_request_tool_calls_sum{model="smollm2"}') == 1
    assert grew('falsework_tool_attempts_total{outcome="unavailable",tool="look"}') == 1
    assert grew('falsework_tool_attempt_duration_seconds_count{outcome="ok",tool="look"}') == 1


def test_phases_sum_to_the_request(scaffold: TurnBuilder) -> None:
    with an_upstream(says("fine", after=0.2)) as up:
        file = {"tools": [http_tool(up)]}
        with house_of(scaffold, calls(("look", "{}")), "Fine.", file=file) as house:
            with capture_logs([structlog.contextvars.merge_contextvars]) as logged:
                sent(house, "POST", CHAT, asked(), x_request_id="req-of-tests")

    (line,) = [line for line in logged if line["event"] == "request"]
    phases = [line[phase] for phase in telemetry.PHASES]
    assert line["request_id"] == "req-of-tests"
    assert sum(phases) == pytest.approx(line["ms"], abs=1)
    assert line["tool"] >= 200


def test_neither_arguments_nor_results_nor_keys_are_logged(scaffold: TurnBuilder) -> None:
    with an_upstream(says("the result is hunter2")) as up:
        file = {"tools": [http_tool(up)]}
        with house_of(scaffold, calls(("look", '{"id": 4711}')), "Fine.", file=file) as house:
            with capture_logs() as logged:
                sent(house, "POST", CHAT, asked(), authorization="Bearer hunter3",
                     idempotency_key="hunter4")  # fmt: skip

    told = json.dumps(logged, default=str)
    assert not re.search("hunter[234]|4711", told)


def test_the_console_is_off_unless_it_is_switched_on(scaffold: TurnBuilder) -> None:
    with house_of(scaffold, "x", file={}) as house:
        assert sent(house, "GET", "/console").status == 404


def test_the_console_is_behind_the_same_keys(scaffold: TurnBuilder) -> None:
    settings = SETTINGS.model_copy(update={"console": True, "api_key": ("one",)})
    with house_of(scaffold, "x", file={}, settings=settings) as house:
        closed = sent(house, "GET", "/console/state")
        opened = sent(house, "GET", "/console/state", authorization="Bearer one")

    assert (closed.status, opened.status) == (401, 200)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.anyio
async def test_a_breaker_is_seen_in_the_state_that_holds_now() -> None:
    async with upstream(always=says({}, 500)) as up:
        breaker = {"min_calls": 1, "open_for": "100ms"}
        async with toolbox(http_tool(up, breaker=breaker)) as box:
            states = [sample("falsework_breaker_state", upstream=up.url)]
            budget = sample("falsework_retry_budget_tokens", upstream=up.url)
            await call(box)
            states.append(sample("falsework_breaker_state", upstream=up.url))
            half_open = eventually(lambda: sample("falsework_breaker_state", upstream=up.url) == 1)
            changed = {"upstream": up.url, "from": "closed", "to": "open"}
            opened = sample("falsework_breaker_transitions_total", **changed)

    assert states == [0, 2]
    assert half_open
    assert budget == 10
    assert opened == 1


@pytest.mark.anyio
async def test_a_fallback_that_finds_nothing_old_is_no_second_look() -> None:
    stale = {"cache": {"ttl": "1s", "stale_if_error": "60s"}, "fallback": [{"stale": True}]}
    async with upstream(always=says({}, 503)) as up:
        async with toolbox(http_tool(up, "keeps", **stale, **PATIENT)) as box:
            before = sample("falsework_cache_total", tool="keeps", result="miss")
            await call(box, name="keeps")
            after = sample("falsework_cache_total", tool="keeps", result="miss")

    assert after - before == 1


@pytest.mark.anyio
async def test_arguments_that_the_model_puts_right_are_repaired_in_a_turn_of_their_own() -> None:
    async with upstream() as up, toolbox(http_tool(up)) as box:
        one, before = run(box), sample("falsework_repair_turns_total")
        repaired = sample("falsework_argument_validation_total", tool="look", result="repaired")
        for arguments in ('{"id": "x"}', '{"id": 1}', '{"id": 2}'):
            one.begin_turn()
            await one.execute([ToolCall("call_1", "look", arguments)])

    assert sample("falsework_repair_turns_total") - before == 1
    now = sample("falsework_argument_validation_total", tool="look", result="repaired")
    assert now - repaired == 1


@pytest.mark.anyio
async def test_a_connection_that_is_refused_is_counted_by_its_reason() -> None:
    before = sample("falsework_egress_blocked_total", reason="private")
    async with upstream() as up:
        tool = write(up, egress={"deny_private": True, "require_tls": False})
        async with toolbox(tool) as box:
            outcome = await call(box, name="change")

    assert kind(outcome) == "blocked_egress"
    assert sample("falsework_egress_blocked_total", reason="private") - before == 1


class Odd:
    """An executor that fails as nobody foresaw."""

    upstream = "odd"

    async def execute(self, arguments: Json, ticket: AttemptContext) -> Any:
        raise RuntimeError(f"hunter2 {arguments} {ticket}")

    async def describe(self) -> ToolDescription:
        return ToolDescription()


@pytest.mark.anyio
async def test_an_attempt_that_fails_unforeseen_was_not_cancelled() -> None:
    attempts = Retrier("odd", ToolPolicy(), Odd(), Upstream("odd", ToolPolicy()))

    with pytest.raises((RuntimeError, ToolCallError)):
        await attempts.run({}, CallState(Deadline.after(5), "call_1"))

    assert sample("falsework_tool_attempts_total", tool="odd", outcome="internal") == 1
    assert sample("falsework_tool_attempts_total", tool="odd", outcome="cancelled") == 0
