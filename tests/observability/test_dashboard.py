"""The dashboard and the alerts: each query names series that a server has after a scripted load."""

import importlib.util
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from support.chat_bodies import Json
from support.clients import CHAT, HELLO, left_open, sent
from support.mcp_processes import SCRIPT
from support.scripted_app import SETTINGS, Running, calls, eventually, scaffold_of
from support.tool_app import an_upstream, house_of, metrics_of
from support.upstream import Upstream, hangs, http_tool, resets, says

from falsework.server.observability import telemetry

DEPLOY = Path(__file__).parents[2] / "deploy"
OURS = r"\b(?:falsework|gen_ai|mcp_client)_\w+"
ONCE = {"max_attempts": 1}


def queries() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    alerts = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    drawn = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return drawn + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def loaded(house: Running, up: Upstream, database: Path) -> dict[str, float]:
    """Put the load on a server, and return its metrics."""
    names = ("again", "slow", "full", "down", "write", "private")
    tools = [{"type": "server_tool", "name": name} for name in names]
    asked: Json = {**HELLO, "tools": [*tools, {"type": "mcp", "server_label": "sums"}]}
    sent(house, "POST", CHAT, asked, idempotency_key="one")
    sent(house, "POST", CHAT, asked, idempotency_key="one")
    before = len(up.seen)
    leaving = left_open(house, tools=tools)
    assert eventually(lambda: len(up.seen) > before)
    leaving.close()
    sent(house, "GET", "/nowhere")
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        sent(house, "GET", "/ready")
        other.execute("ROLLBACK")
    assert eventually(lambda: has(metrics_of(house), "falsework_client_disconnects_total"))
    return metrics_of(house)


def has(samples: dict[str, float], name: str) -> bool:
    return any(sample.partition("{")[0] == name for sample in samples)


@pytest.fixture(scope="module")
def samples(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, float]]:
    database = tmp_path_factory.mktemp("dashboard") / "kept.db"
    settings = SETTINGS.model_copy(update={"database": f"sqlite:///{database}"})
    turns = [
        calls(("again", "{}")),
        calls(("slow", "{}")),
        calls(("full", '{"id": 1}'), ("full", '{"id": 2}')),
        calls(("sums__add", '{"a": 1, "b": 2}')),
        calls(("down", '{"id": 1}')),
        calls(("down", '{"id": 2}')),
        calls(("write", "{}")),
        calls(("private", "{}")),
        calls(("private", '{"id": 2}')),
        "Enough.",
        calls(("again", '{"id": 9}')),
    ]
    script = (says({}, 503), says("fine"), says("late", after=0.4), says("fine"),
              says("fine", after=0.2), resets)  # fmt: skip
    with an_upstream(*script, always=hangs) as up, an_upstream(always=says({}, 503)) as down:
        private = {"deny_private": True, "require_tls": False}
        file: Json = {
            "request": {"max_failed_steps": 3, "max_steps": 20, "max_tool_calls": 20},
            "servers": {"sums": {"command": ["python", SCRIPT, "stdio"], "tools": ["add"]}},
            "tools": [
                http_tool(up, "again"),
                http_tool(up, "slow", hedge={"after": "50ms", "floor": "50ms"}),
                http_tool(up, "full", bulkhead={"max_concurrent": 1, "max_queue": 0}),
                http_tool(down, "down", retry_budget={"burst": 0}, breaker={"min_calls": 1},
                          fallback=[{"value": "nothing"}]),
                http_tool(up, "write", method="POST", retry=ONCE),
                http_tool(up, "private", egress=private),
                {"name": "area",
                    "effect": "pure", "description": "An area.",
                 "python": {"callable": "math:sqrt", "run_in": "thread"}},
            ],
        }  # fmt: skip
        with house_of(scaffold_of(smollm2), *turns, file=file, settings=settings) as house:
            yield loaded(house, up, database)


@pytest.mark.parametrize("query", queries())
def test_what_is_drawn_or_watched_exists_after_a_load(
    query: str, samples: dict[str, float]
) -> None:
    named = set(re.findall(OURS, re.sub(r"\bby \([^)]*\)", "", query)))

    assert {name for name in named if not has(samples, name)} == set()


@pytest.mark.parametrize("query", [query for query in queries() if re.search(OURS, query)])
def test_labels_that_are_drawn_exist(query: str, samples: dict[str, float]) -> None:
    named = set(re.findall(OURS, re.sub(r"\bby \([^)]*\)", "", query)))
    drawn = {label for by in re.findall(r"\bby \(([^)]*)\)", query) for label in by.split(", ")}
    there = {
        label for sample in samples if sample.partition("{")[0] in named
        for label in re.findall(r'(\w+)="', sample)
    }  # fmt: skip

    assert drawn <= there


def test_what_is_drawn_of_the_engine_is_what_vllm_names() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM isn't installed here")
    folder = Path(found.origin).parent / "v1/metrics"
    named = set(re.findall(r'"(vllm:\w+)"', "".join(p.read_text() for p in folder.glob("*.py"))))
    drawn = {name for query in queries() for name in re.findall(r"vllm:\w+", query)}

    assert drawn
    assert {re.sub("_(total|bucket|sum|count)$", "", name) for name in drawn} <= named


def test_every_metric_has_the_projects_prefix_or_the_conventions() -> None:
    metrics = [each for each in vars(telemetry).values() if isinstance(each, MetricWrapperBase)]
    names = {metric.describe()[0].name for metric in metrics}

    assert {name for name in names if not re.fullmatch(OURS, name)} == set()
