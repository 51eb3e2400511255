"""What is counted and logged where a request is refused, left, or ended by its client."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from support.chat_bodies import Json
from support.clients import CHAT, HELLO, left_open, sent
from support.mcp_processes import over_http
from support.response_bodies import ADD, FILE, SUMS, made, responding
from support.scripted_app import SETTINGS, Running, calls, eventually, scaffold_of
from support.server_process import free_port
from support.tool_app import an_upstream, house_of, metrics_of
from support.upstream import http_tool, says

from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.turn import TurnBuilder

LOOK = {"type": "server_tool", "name": "look"}
LEFT = "falsework_client_disconnects_total"


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@contextmanager
def logged() -> Iterator[list[Any]]:
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        yield lines


def lines_of(lines: list[Any], event: str) -> list[Json]:
    return [line for line in lines if line["event"] == event]


class Growth:
    """What has grown since it was made."""

    def __init__(self, house: Running) -> None:
        self._house = house
        self._before = metrics_of(house)

    def of(self, name: str, **labels: str) -> float:
        written = "{" + ",".join(f'{key}="{labels[key]}"' for key in sorted(labels)) + "}"
        return metrics_of(self._house).get(name + written, 0) - self._before.get(name + written, 0)

    def by(self, name: str) -> dict[str, float]:
        """Return by its labels what has grown of a name."""
        now = metrics_of(self._house).items()
        grown = {key: value - self._before.get(key, 0) for key, value in now}
        return {k.partition("{")[2]: v for k, v in grown.items() if v and k.startswith(name + "{")}


@pytest.mark.parametrize(
    ("path", "body", "key", "counted"),
    [
        (CHAT, {**HELLO}, "wrong", (CHAT, 401)),
        (CHAT, {**HELLO, "messages": 4}, "one", (CHAT, 400)),
        (CHAT, {**HELLO, "model": "other"}, "one", (CHAT, 404)),
        ("/v1/nowhere/hunter2", {}, "one", ("other", 404)),
    ],
)
def test_a_refused_request_is_counted_by_its_route_and_logged(
    scaffold: TurnBuilder, path: str, body: Json, key: str, counted: tuple[str, int]
) -> None:
    settings = SETTINGS.model_copy(update={"api_key": ("one",)})
    with house_of(scaffold, "x", file={}, settings=settings) as house, logged() as lines:
        sent(house, "POST", path, body, authorization=f"Bearer {key}", x_request_id="req-1")
        metrics = sent(house, "GET", "/metrics", authorization="Bearer one").text

    route, status = counted
    assert f'falsework_http_requests_total{{route="{route}",status="{status}"}}' in metrics
    (line,) = lines_of(lines, "refused")
    assert (line["route"], line["status"], line["request_id"]) == (route, status, "req-1")
    assert "hunter2" not in metrics


def test_a_client_that_finds_no_seat_is_counted(scaffold: TurnBuilder) -> None:
    settings = SETTINGS.model_copy(update={"max_concurrent_requests": 1})
    with house_of(scaffold, ScriptedReply(["x"], "hang"), file={}, settings=settings) as house:
        grown = Growth(house)
        with left_open(house):
            assert eventually(lambda: house.engine.open)
            sent(house, "POST", CHAT, HELLO)
            assert grown.of("falsework_http_requests_total", route=CHAT, status="429") == 1


def test_a_client_that_leaves_during_a_call_left_during_a_tool(scaffold: TurnBuilder) -> None:
    with an_upstream(always=says({}, after=20)) as up:
        slow = {"deadline": "30s", "attempt_timeout": "30s"}
        file = {"tools": [http_tool(up, **slow)]}
        with house_of(scaffold, calls(("look", "{}")), "x", file=file) as house, logged() as lines:
            grown = Growth(house)
            connection = left_open(house, tools=[LOOK])
            assert eventually(lambda: up.seen)
            connection.close()
            assert eventually(lambda: lines_of(lines, "request"))
            called = grown.by("falsework_tool_calls_total")
            left = grown.by(LEFT)
            given_up = grown.of("falsework_cancelled_tools_total", tool="look")
            measured = grown.by("gen_ai_execute_tool_duration_seconds_count")

    (line,) = lines_of(lines, "request")
    assert line["tool"] > 0
    assert left == {'phase="tool"}': 1}
    assert [*called.values(), given_up] == [1, 1]
    assert ['error_type="cancelled"' in labels for labels in (*called, *measured)] == [True, True]
    (told,) = lines_of(lines, "tool call")
    assert (told["tool"], told["error_type"]) == ("look", "cancelled")


def test_a_write_that_finishes_after_its_client_left_is_not_cancelled(
    scaffold: TurnBuilder,
) -> None:
    with an_upstream(says("done", after=0.3)) as up:
        file = {"tools": [http_tool(up, method="POST")]}
        with house_of(scaffold, calls(("look", "{}")), "x", file=file) as house, logged() as lines:
            grown = Growth(house)
            connection = left_open(house, tools=[LOOK])
            assert eventually(lambda: up.seen)
            connection.close()
            assert eventually(lambda: lines_of(lines, "tool call"))
            given_up = grown.by("falsework_cancelled_tools_total")

    (told,) = lines_of(lines, "tool call")
    assert (told["outcome"], told["attempts"], given_up) == ("ok", 1, {})
    assert told["request_id"] == lines_of(lines, "request")[0]["request_id"]


def test_a_response_that_is_cancelled_in_the_background_is_nobody_who_left(
    scaffold: TurnBuilder,
) -> None:
    with responding(scaffold, ScriptedReply(["x"], "hang"), file={}) as house, logged() as lines:
        grown = Growth(house)
        begun = made(house, background=True)
        assert eventually(lambda: house.engine.open)
        sent(house, "POST", f"/v1/responses/{begun.id}/cancel", authorization="Bearer k")
        left = grown.by(LEFT)

    assert left == {}
    assert [line["outcome"] for line in lines_of(lines, "request")] == ["cancelled"]


def test_an_approved_call_takes_its_time_as_a_tool(scaffold: TurnBuilder) -> None:
    tools = [{**SUMS, "require_approval": "always"}]
    with responding(scaffold, ADD, "Five.", file=FILE) as house, logged() as lines:
        first = made(house, tools=tools)
        answer = {"type": "mcp_approval_response", "approve": True,
                  "approval_request_id": first.output[-1].id}  # fmt: skip
        made(house, tools=tools, previous_response_id=first.id, input=[answer])

    (called,), (_, request) = lines_of(lines, "tool call"), lines_of(lines, "request")
    assert request["tool"] >= called["ms"] - 1


def test_what_requests_bring_along_is_no_label_and_its_owner_nobodys_request(
    scaffold: TurnBuilder,
) -> None:
    port = free_port()
    guest = {"type": "mcp", "server_label": "brought", "require_approval": "never",
             "server_url": f"http://127.0.0.1:{port}/mcp"}  # fmt: skip
    file = {"request_servers": {"allow_hosts": ["127.0.0.1"], "deny_private": False}}
    said = calls(("brought__add", '{"a": 2, "b": 3}'))
    with over_http(port) as process, responding(scaffold, said, "5", said, file=file) as house:
        with logged() as lines:
            grown = Growth(house)
            made(house, tools=[guest])
            process.kill()
            made_of = grown.by("falsework_tool_calls_total")
            metrics = metrics_of(house)
            assert eventually(lambda: sent_again(house, guest, lines))

    assert list(made_of) == ['effect="write",error_type="",kind="mcp",outcome="ok",tool="other"}']
    assert not any("brought" in sample for sample in metrics)
    assert all("request_id" not in line for line in lines_of(lines, "connection lost"))


def sent_again(house: Running, guest: Json, lines: list[Any]) -> bool:
    """Ask the server that is gone, so that its loss is noticed."""
    body = {"model": "smollm2", "input": "?", "tools": [guest]}
    sent(house, "POST", "/v1/responses", body, timeout=30)
    return bool(lines_of(lines, "connection lost"))
