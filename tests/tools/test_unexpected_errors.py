"""What nobody foresaw costs the one call that met it: not its siblings, not the next, no server."""

import json
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.upstream import (
    Json,
    calls,
    http_tool,
    kind,
    resets,
    run,
    says,
    says_bytes,
    toolbox,
    upstream,
)

from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import ToolCall

pytestmark = pytest.mark.anyio

ANYTHING = {"type": "object"}
DEEP = says_bytes(b"[" * 100_000)
LATE = "Mon, 01 Jan 2024 00:00:00 +999999999999999999"
LONELY = '{"q": "\\ud800"}'

ANSWERS = {
    "nested without end": DEEP,
    "half a character": says_bytes(b'"\\ud800"'),
    "no number": says_bytes(b'{"a": NaN}'),
    "too large a number": says_bytes(b'{"a": 1e999}'),
    "a pause without end": says({}, 429, retry_after_ms="inf"),
    "a pause that is no number": says({}, 429, retry_after_ms="nan"),
    "a date that is none": says({}, 429, retry_after=LATE),
}
ARGUMENTS = {
    "half a character": LONELY,
    "half a character, bare": '{"q": "\ud800"}',
    "no number": '{"q": NaN}',
    "no end": '{"q": -Infinity}',
    "too large a number": '{"q": 1e999}',
    "nested without end": '{"q": ' + "[" * 100_000,
    "accents in a header": '{"team": "é"}',
    "a line in a header": '{"team": "a\\nb"}',
    "a path without end": json.dumps({"id": "a" * 70_000}),
    "two kinds compared": '{"amount": "1000000"}',
}


async def _costs_one_call(bad: Json, arguments: str, *more: Json) -> ToolResult:
    """Call a tool beside three others, then others again; return its outcome, a plain text."""
    async with upstream() as good:
        others = [http_tool(good, "reads"), http_tool(good, "writes", method="POST")]
        async with toolbox(bad, *others, *more) as box:
            asked = [("reads", '{"id": 1}'), (bad["name"], arguments), ("writes", '{"id": 1}'),
                     ("reads", '{"id": 2}')]  # fmt: skip
            first, met, *siblings = await calls(box, asked)
            after = await calls(box, [("writes", '{"id": 3}'), ("reads", '{"id": 3}')])
            assert box.healthy

    assert [kind(one) for one in [first, *siblings, *after]] == ["ok"] * 5
    met.for_model().encode()
    return met


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_any_answer_costs_one_call(answer: str, method: str) -> None:
    async with upstream(ANSWERS[answer]) as up:
        retry = {"max_attempts": 1}
        outcome = await _costs_one_call(http_tool(up, "bad", method=method, retry=retry), "{}")

    assert kind(outcome) in {"bad_response", "rate_limited"}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("arguments", ARGUMENTS)
async def test_any_arguments_cost_one_call(arguments: str, method: str) -> None:
    async with upstream() as up:
        bad = http_tool(up, "bad", "/{id}", method=method, parameters=ANYTHING,
                        approval={"when": "args.amount > `100`"})  # fmt: skip
        bad["http"]["headers"] = {"x-team": "{team}"}
        outcome = await _costs_one_call(bad, ARGUMENTS[arguments])

    assert not outcome.ok
    assert up.seen == []
    assert outcome.effect in {"none", "not_applied"}


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_a_result_that_is_no_json_costs_one_call(effect: str) -> None:
    python = {"callable": "support.python_tools:today"}
    bad = {"name": "bad", "parameters": ANYTHING, "python": python, "effect": effect}

    outcome = await _costs_one_call(bad, "{}")

    assert kind(outcome) == "bad_response"
    assert outcome.effect == ("none" if effect == "read" else "unknown")


async def test_a_verification_that_lacks_an_argument_leaves_the_effect_unknown() -> None:
    verify = {"tool": "look", "arguments": {"id": "{id}"}, "matches": "result.ok == `1`"}
    async with upstream(resets) as up:
        bad = http_tool(up, "bad", method="POST", verify=verify)
        outcome = await _costs_one_call(bad, "{}", http_tool(up))

    assert (kind(outcome), outcome.effect) == ("unavailable", "unknown")


class _Broken:
    """An executor with a mistake in it."""

    upstream = "broken"

    async def execute(self, *_: Any) -> Any:
        raise ZeroDivisionError("hunter2")


@pytest.mark.parametrize(("method", "effect"), [("GET", "none"), ("POST", "unknown")])
async def test_a_mistake_of_ours_is_told_as_internal_and_logged_without_its_text(
    method: str, effect: str
) -> None:
    async with upstream() as up, toolbox(http_tool(up, method=method)) as box:
        box.tools["look"]._retrier._executor = _Broken()  # type: ignore[assignment]
        with capture_logs() as logged:
            (outcome,) = await calls(box, [("look", "{}")])

    assert (kind(outcome), outcome.effect) == ("internal", effect)
    assert "ZeroDivisionError" in str(logged)
    assert "hunter2" not in str(logged) + outcome.for_model()


async def _lost(_: ToolResult) -> None:
    raise OSError("the database is gone")


@pytest.mark.parametrize(("method", "reached"), [("GET", 1), ("POST", 0)])
async def test_what_cannot_be_recorded_is_written_by_nobody_and_read_all_the_same(
    method: str, reached: int
) -> None:
    async with upstream() as up, toolbox(http_tool(up, method=method)) as box:
        (outcome,) = await run(box, record=_lost).execute([ToolCall("1", "look", "{}")])
        (after,) = await calls(box, [("look", '{"id": 2}')])

    assert kind(outcome) == ("ok" if reached else "internal")
    assert len(up.seen) == reached + 1
    assert after.ok


async def test_a_write_whose_end_cannot_be_recorded_is_told_as_it_was() -> None:
    begun: list[ToolResult] = []

    async def record(outcome: ToolResult) -> None:
        begun.append(outcome)
        if len(begun) == 2:
            await _lost(outcome)

    async with upstream() as up, toolbox(http_tool(up, method="POST")) as box:
        (outcome,) = await run(box, record=record).execute([ToolCall("1", "look", "{}")])

    assert (kind(outcome), outcome.effect) == ("ok", "applied")


async def test_a_toolbox_that_has_ended_says_so_and_calls_nothing() -> None:
    async with upstream() as up:
        async with toolbox(http_tool(up, method="POST")) as box:
            assert box.healthy
        (outcome,) = await calls(box, [("look", "{}")])

    assert not box.healthy
    assert (kind(outcome), up.seen) == ("cancelled", [])
