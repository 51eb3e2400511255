"""What requests leave behind as spans: each its own waterfall, whole, and nobody's text in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from support.chat_bodies import Json
from support.clients import CHAT, HELLO, left_open, sent
from support.response_bodies import ADD, FILE, SUMS, made, responding
from support.scripted_app import SETTINGS, Running, calls, eventually, scaffold_of
from support.tool_app import an_upstream, house_of
from support.upstream import Upstream, http_tool, says

from falsework.server.generation.turn import TurnBuilder
from falsework.server.observability import telemetry
from falsework.server.observability.tracing import MAX_SPANS, RecentTraces

LOOK = {"type": "server_tool", "name": "look"}
WATCHED = SETTINGS.model_copy(update={"console": True})


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture
def up() -> Iterator[Upstream]:
    with an_upstream(says({}, 503), says("fine")) as made:
        yield made


def asked(**fields: object) -> Json:
    return {**HELLO, "tools": [LOOK], **fields}


def waterfalls(house: Running) -> list[Json]:
    """Return the requests, the newest first."""
    shown: list[Json] = sent(house, "GET", "/console/state").json["requests"]
    return shown


def named(waterfall: Json, name: str) -> Json:
    found: Json = next(span for span in waterfall["spans"] if span["name"] == name)
    return found


def names(waterfall: Json) -> list[str]:
    phases = telemetry.PHASES[:4]
    return [span["name"] for span in waterfall["spans"] if span["name"] not in phases]


def test_the_console_has_a_waterfall_of_each_request(scaffold: TurnBuilder, up: Upstream) -> None:
    said = [calls(("look", "{}")), "Fine."]
    with house_of(scaffold, *said, file={"tools": [http_tool(up)]}, settings=WATCHED) as house:
        sent(house, "POST", CHAT, asked(), traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01")
        state = sent(house, "GET", "/console/state").json
    waterfall = state["requests"][0]
    phases = {one["name"] for one in waterfall["spans"]} & set(telemetry.PHASES)

    assert names(waterfall) == [
        "POST /v1/chat/completions", "invoke_workflow chat", "chat smollm2", "execute_tool look",
        "attempt 1", "backoff", "attempt 2", "chat smollm2",
    ]  # fmt: skip
    assert [span["failed"] for span in waterfall["spans"] if "attempt" in span["name"]] == [
        True,
        False,
    ]
    assert phases >= {"prefill", "decode", "backoff"}
    assert state["upstreams"][0]["state"] == "closed"
    assert waterfall["trace"] == "ab" * 16
    assert "ab" * 16 in up.seen[0].headers["traceparent"]
    assert [one["name"] for one in named(waterfall, "execute_tool look")["events"]] == ["retry"]


def test_a_turn_of_the_model_says_what_it_took(scaffold: TurnBuilder) -> None:
    with house_of(scaffold, "Hello there.", file={}, settings=WATCHED) as house:
        sent(house, "POST", CHAT, {**HELLO, "reasoning_effort": "low"})
        turn = named(waterfalls(house)[0], "chat smollm2")["attributes"]

    assert turn["gen_ai.operation.name"] == "chat"
    assert turn["gen_ai.provider.name"] == "falsework"
    assert turn["gen_ai.response.finish_reasons"] == "('stop',)"
    assert turn["gen_ai.request.reasoning.level"] == "low"
    assert int(turn["gen_ai.usage.input_tokens"]) > 5
    assert int(turn["gen_ai.usage.output_tokens"]) >= 1
    assert turn["gen_ai.usage.reasoning.output_tokens"] == "0"
    assert float(turn["gen_ai.response.time_to_first_chunk"]) > 0


@pytest.mark.parametrize("sampled", ["00", "01"])
def test_requests_of_one_trace_are_two_waterfalls_sampled_or_not(
    scaffold: TurnBuilder, sampled: str
) -> None:
    shared = f"00-{'12' * 16}-{'34' * 8}-{sampled}"
    with house_of(scaffold, "Hello.", file={}, settings=WATCHED) as house:
        before = len(waterfalls(house))
        for _ in range(2):
            sent(house, "POST", CHAT, HELLO, traceparent=shared)
        shown = waterfalls(house)

    assert len(shown) == before + 2
    assert [names(one) for one in shown[:2]] == 2 * [["POST /v1/chat/completions", "chat smollm2"]]
    assert shown[0]["id"] != shown[1]["id"]
    assert shown[0]["trace"] == shown[1]["trace"] == "12" * 16


def test_what_a_client_does_not_sample_is_not_exported(scaffold: TurnBuilder, up: Upstream) -> None:
    said = [calls(("look", "{}")), "Fine."]
    with house_of(scaffold, *said, file={"tools": [http_tool(up)]}, settings=WATCHED) as house:
        sent(house, "POST", CHAT, asked(), traceparent=f"00-{'ab' * 16}-{'cd' * 8}-00")

    flags = int(up.seen[0].headers["traceparent"].rpartition("-")[2], 16)
    assert flags & 1 == 0


def test_a_request_of_very_many_spans_is_shown_from_its_root_on() -> None:
    traces, provider = RecentTraces(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(traces)
    tracer = provider.get_tracer("tests")
    with tracer.start_as_current_span("the request", kind=SpanKind.SERVER):
        for number in range(MAX_SPANS + 100):
            tracer.start_span(f"span {number}").end()

    (waterfall,) = traces.waterfalls()
    assert waterfall["name"] == waterfall["spans"][0]["name"] == "the request"
    assert len(waterfall["spans"]) == MAX_SPANS + 1


def test_what_is_made_in_the_background_is_a_waterfall_of_its_own(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ADD, "Five.", file=FILE, settings=WATCHED) as house:
        made(house, tools=[SUMS], background=True)
        assert eventually(lambda: len(waterfalls(house)) == 2)
        shown = names(waterfalls(house)[0])

    assert shown == [
        "background response", "invoke_workflow responses", "chat smollm2",
        "execute_tool sums__add", "attempt 1", "MCP send tools/call add", "chat smollm2",
    ]  # fmt: skip


def test_an_approved_call_belongs_to_the_workflow_of_its_request(scaffold: TurnBuilder) -> None:
    tools = [{**SUMS, "require_approval": "always"}]
    with responding(scaffold, ADD, "Five.", file=FILE, settings=WATCHED) as house:
        first = made(house, tools=tools)
        answer: Any = {
            "type": "mcp_approval_response",
            "approval_request_id": first.output[-1].id,
            "approve": True,
        }
        made(house, tools=tools, previous_response_id=first.id, input=[answer])
        waterfall = waterfalls(house)[0]

    assert names(waterfall)[1:4] == [
        "invoke_workflow responses",
        "execute_tool sums__add",
        "attempt 1",
    ]


def test_a_write_that_outlives_its_request_is_in_its_waterfall(scaffold: TurnBuilder) -> None:
    with an_upstream(says("done", after=0.3)) as up:
        file = {"tools": [http_tool(up, method="POST")]}
        with house_of(scaffold, calls(("look", "{}")), "x", file=file, settings=WATCHED) as house:
            connection = left_open(house, tools=[LOOK])
            assert eventually(lambda: up.seen)
            connection.close()
            assert eventually(lambda: any("attempt 1" in names(one) for one in waterfalls(house)))
            waterfall = waterfalls(house)[0]

    assert not named(waterfall, "attempt 1")["failed"]


def test_a_call_that_fails_is_marked_and_a_breaker_that_rejects_is_seen(
    scaffold: TurnBuilder,
) -> None:
    said = [calls(("look", '{"id": 1}')), calls(("look", '{"id": 2}')), "No."]
    with an_upstream(always=says({}, 500)) as up:
        file = {"tools": [http_tool(up, breaker={"min_calls": 1})]}
        with house_of(scaffold, *said, file=file, settings=WATCHED) as house:
            sent(house, "POST", CHAT, asked())
            waterfall = waterfalls(house)[0]
    told = [span for span in waterfall["spans"] if span["name"] == "execute_tool look"]
    kept_away = [span for span in waterfall["spans"] if span["name"] == "attempt 1"][1]

    assert [span["failed"] for span in told] == [True, True]
    assert [event["name"] for event in told[1]["events"]] == ["breaker.open"]
    assert kept_away["attributes"]["error.type"] == "circuit_open"


def test_no_span_bears_the_text_of_an_exception(scaffold: TurnBuilder) -> None:
    tool = {"name": "look", "python": {"callable": "support.python_tools:fail"}, "parameters": {}}
    with house_of(scaffold, calls(("look", "{}")), "No.", file={"tools": [tool]},
                  settings=WATCHED) as house:  # fmt: skip
        sent(house, "POST", CHAT, asked())
        shown = waterfalls(house)[0]

    assert named(shown, "execute_tool look")["failed"]
    assert "hunter2" not in json.dumps(shown)
