"""What is seen from outside: every metric and span by its name, phases that sum, nothing secret."""

import json
import re
from pathlib import Path

import pytest
import structlog
from asking import Json
from faulty import http_tool, says
from houses import SETTINGS, Running, calls, scaffold_of
from prometheus_client.metrics import MetricWrapperBase
from structlog.testing import capture_logs
from toolhouses import an_upstream, house_of
from visiting import CHAT, HELLO, sent

from falsework.runtime import telemetry
from falsework.server.turns import Scaffold

ROOT = Path(__file__).parent.parent
DASHBOARD = ROOT / "deploy/grafana-dashboard.json"
LOOK = {"type": "server_tool", "name": "look"}


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> Scaffold:
    return scaffold_of(smollm2)


def metrics_of(house: Running) -> dict[str, float]:
    """Return the samples by name and labels."""
    text = sent(house, "GET", "/metrics").text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


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
    assert grew("falsework_request_model_turns_sum") == 2
    assert grew("falsework_request_tool_calls_sum") == 1
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


def exported() -> set[str]:
    """Return the names of all series, as Prometheus sees them."""
    metrics = [each for each in vars(telemetry).values() if isinstance(each, MetricWrapperBase)]
    names = set()
    for metric in metrics:
        (described,) = metric.describe()
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {described.name + end for end in suffixes.get(described.type, [""])}
    return names


def test_every_query_of_the_dashboard_names_a_metric_that_exists() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    ours = {name for query in queries for name in re.findall(r"\b(?:falsework|gen_ai)_\w+", query)}

    assert len(queries) > 10
    assert ours <= exported()


def test_every_metric_has_the_projects_prefix_or_the_conventions() -> None:
    assert {name for name in exported() if not name.startswith(("falsework_", "gen_ai_"))} == set()


def test_the_console_is_off_unless_it_is_switched_on(scaffold: Scaffold) -> None:
    with house_of(scaffold, "x", file={}) as house:
        assert sent(house, "GET", "/console").status == 404


def test_the_console_is_behind_the_same_keys(scaffold: Scaffold) -> None:
    settings = SETTINGS.model_copy(update={"console": True, "api_key": ("one",)})
    with house_of(scaffold, "x", file={}, settings=settings) as house:
        closed = sent(house, "GET", "/console/state")
        opened = sent(house, "GET", "/console/state", authorization="Bearer one")

    assert (closed.status, opened.status) == (401, 200)


def test_the_console_has_a_waterfall_of_each_request(scaffold: Scaffold) -> None:
    settings = SETTINGS.model_copy(update={"console": True})
    with an_upstream(says({}, 503), says("fine")) as up:
        file = {"tools": [http_tool(up)]}
        said = [calls(("look", "{}")), "Fine."]
        with house_of(scaffold, *said, file=file, settings=settings) as house:
            sent(house, "POST", CHAT, asked(), traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01")
            state = sent(house, "GET", "/console/state").json
    waterfall = next(one for one in state["requests"] if one["id"] == "ab" * 16)
    names = [one["name"] for one in waterfall["spans"] if one["name"] not in telemetry.PHASES[:4]]
    phases = {one["name"] for one in waterfall["spans"]} & set(telemetry.PHASES)

    assert names == [
        "POST /v1/chat/completions", "invoke_workflow", "chat smollm2", "execute_tool look",
        "attempt 1", "backoff", "attempt 2", "chat smollm2",
    ]  # fmt: skip
    assert [span["failed"] for span in waterfall["spans"] if "attempt" in span["name"]] == [
        True,
        False,
    ]
    assert phases >= {"prefill", "decode", "backoff"}
    assert state["upstreams"][0]["state"] == "closed"
    assert "ab" * 16 in up.seen[0].headers["traceparent"]
