"""What is seen from outside: every metric and span by its name, phases that sum, nothing secret."""

import json
import re
from pathlib import Path

import pytest
import structlog
from asking import Json
from faulty import http_tool, says
from houses import SETTINGS, calls, scaffold_of
from structlog.testing import capture_logs
from toolhouses import an_upstream, house_of, metrics_of
from visiting import CHAT, HELLO, sent

from falsework.runtime import telemetry
from falsework.server.turns import Scaffold

LOOK = {"type": "server_tool", "name": "look"}


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> Scaffold:
    return scaffold_of(smollm2)


def asked(**fields: object) -> Json:
    return {**HELLO, "tools": [LOOK], **fields}


def test_a_request_with_tools_is_counted_in_every_part(scaffold: Scaffold) -> None:
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


def test_phases_sum_to_the_request(scaffold: Scaffold) -> None:
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


def test_neither_arguments_nor_results_nor_keys_are_logged(scaffold: Scaffold) -> None:
    with an_upstream(says("the result is hunter2")) as up:
        file = {"tools": [http_tool(up)]}
        with house_of(scaffold, calls(("look", '{"id": 4711}')), "Fine.", file=file) as house:
            with capture_logs() as logged:
                sent(house, "POST", CHAT, asked(), authorization="Bearer hunter3",
                     idempotency_key="hunter4")  # fmt: skip

    told = json.dumps(logged, default=str)
    assert not re.search("hunter[234]|4711", told)


def test_the_console_is_off_unless_it_is_switched_on(scaffold: Scaffold) -> None:
    with house_of(scaffold, "x", file={}) as house:
        assert sent(house, "GET", "/console").status == 404


def test_the_console_is_behind_the_same_keys(scaffold: Scaffold) -> None:
    settings = SETTINGS.model_copy(update={"console": True, "api_key": ("one",)})
    with house_of(scaffold, "x", file={}, settings=settings) as house:
        closed = sent(house, "GET", "/console/state")
        opened = sent(house, "GET", "/console/state", authorization="Bearer one")

    assert (closed.status, opened.status) == (401, 200)
