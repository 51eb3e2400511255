"""The calls of one request: limits, order, memory, and who goes on when the client has left."""

import json
import random
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.upstream import Json, call, calls, http_tool, kind, run, says, toolbox, until, upstream

from falsework.server.tools.deadline import Deadline
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import ParsedArguments, ToolCall

pytestmark = pytest.mark.anyio

ANYTHING = {"type": "object"}


def python_tool(name: str, callable_name: str | None = None, **fields: Any) -> Json:
    where = f"support.python_tools:{callable_name or name}"
    return {"name": name, "parameters": ANYTHING, "python": {"callable": where}, **fields}


@pytest.mark.parametrize("effect", ["read", "write"])
@pytest.mark.parametrize("name", ["double", "double_slowly"])
async def test_a_function_is_a_tool_in_a_thread_or_in_a_process(name: str, effect: str) -> None:
    async with toolbox(python_tool(name, effect=effect)) as box:
        outcome = await call(box, '{"number": 21}', name)

    assert outcome.value == 42


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_what_a_function_raises_is_told_only_if_it_was_meant_to_be(effect: str) -> None:
    async with toolbox(
        python_tool("refuse", effect=effect), python_tool("fail", effect=effect)
    ) as box:
        meant = await call(box, '{"why": "not today"}', "refuse")
        other = await call(box, "{}", "fail")

    assert (kind(meant), kind(other)) == ("tool_error", "tool_error")
    assert "not today" in meant.for_model()
    assert "hunter2" not in other.for_model()


async def test_a_function_in_a_process_is_stopped_at_its_timeout(tmp_path: Path) -> None:
    tool = python_tool("write", attempt_timeout="1500ms", deadline="3s")
    async with toolbox(tool) as box:
        arguments = json.dumps({"path": str(tmp_path / "f"), "seconds": 1.7})
        outcome = await call(box, arguments, "write")
        await anyio.sleep(0.4)

    assert (kind(outcome), outcome.effect) == ("timeout", "unknown")
    assert not (tmp_path / "f").exists()


async def test_a_function_in_a_thread_that_does_not_listen_is_counted_until_it_ends() -> None:
    tool = python_tool("sleep", effect="read", attempt_timeout="200ms", retry={"max_attempts": 1})
    async with toolbox(tool) as box:
        executor: Any = box.tools["sleep"].executor
        outcome = await call(box, '{"seconds": 0.6}', "sleep")
        leaked = executor.leaked_threads
        await until(lambda: executor.leaked_threads == 0)

        assert (kind(outcome), leaked) == ("timeout", 1)
        assert outcome.seconds < 0.3


async def test_a_process_that_dies_costs_its_own_call() -> None:
    tool = python_tool("die", retry={"max_attempts": 1})
    async with toolbox(tool, python_tool("double")) as box:
        died, doubled = await calls(box, [("die", "{}"), ("double", '{"number": 1}')])

    assert (kind(died), doubled.value) == ("unavailable", 2)


async def test_a_tool_that_needs_another_waits_until_that_has_succeeded() -> None:
    async with upstream() as up:
        third = http_tool(up, "third", requires=["look"])
        async with toolbox(http_tool(up), third) as box:
            chain = run(box)
            (early,) = await chain.execute([ToolCall("1", "third", "{}")])
            await chain.execute([ToolCall("2", "look", "{}")])
            (late,) = await chain.execute([ToolCall("3", "third", "{}")])

    assert kind(early) == "precondition_failed"
    assert "look" in early.for_model()
    assert late.ok


async def test_the_same_call_again_is_answered_from_memory_with_a_note() -> None:
    async with upstream() as up, toolbox(http_tool(up)) as box:
        chain = run(box)
        first = await chain.execute([ToolCall("1", "look", '{"id": 1}')])
        again = await chain.execute(
            [ToolCall("2", "look", '{ "id":1 }'), ToolCall("3", "look", '{"id": 1}')]
        )

    assert len(up.seen) == 1
    assert [one.ok for one in [*first, *again]] == [True] * 3
    assert "note" in json.loads(again[0].for_model())
    assert chain.stopped_by == "identical_calls"


async def test_the_same_call_twice_in_one_turn_runs_once() -> None:
    async with upstream(always=says("slow", after=0.05)) as up, toolbox(http_tool(up)) as box:
        ends = await calls(box, [("look", '{"id": 1}')] * 2)

    assert (len(up.seen), [end.ok for end in ends]) == (1, [True, True])


async def test_the_arguments_of_a_call_are_parsed_and_checked_once() -> None:
    recorded: list[ToolResult] = []

    async def record(outcome: ToolResult) -> None:
        recorded.append(outcome)

    tool = {"method": "POST", "approval": {"when": "args.id > `10`"}, "idempotency": {}}
    async with upstream() as up, toolbox(http_tool(up, **tool)) as box:
        parsed: list[str] = []
        look = box.tools["look"]
        parse = look.parse

        def counted(text: str) -> ParsedArguments:
            parsed.append(text)
            return parse(text)

        look.parse = counted  # type: ignore[method-assign]
        chain = run(box, record=record)
        asked = chain.parse(ToolCall("1", "look", '{ "id": 1 }'))
        waits = chain.requires_approval(asked)
        (outcome,) = await chain.execute([asked])

    assert (outcome.ok, waits, parsed) == (True, False, ['{ "id": 1 }'])
    assert [one.dedup_key for one in recorded] == [("look", '{"id":1}')] * 2
    assert list(chain.memory) == [("look", '{"id":1}')]


async def test_arguments_that_are_wrong_three_times_end_the_calls() -> None:
    async with upstream() as up, toolbox(http_tool(up)) as box:
        chain = run(box)
        kinds = []
        for n in range(3):
            (outcome,) = await chain.execute([ToolCall(str(n), "look", f'{{"id": "no {n}"}}')])
            kinds.append(kind(outcome))

        assert kinds == ["invalid_arguments"] * 3
        assert outcome.error is not None
        assert outcome.error.details[0]["pointer"] == "/id"
        assert (chain.stopped_by, len(up.seen)) == ("failed_steps", 0)


async def test_more_calls_than_allowed_are_not_made() -> None:
    async with upstream() as up, toolbox(http_tool(up), request={"max_tool_calls": 2}) as box:
        ends = await calls(box, [("look", f'{{"id": {n}}}') for n in range(4)])

    assert sorted(map(kind, ends)) == ["not_allowed", "not_allowed", "ok", "ok"]
    assert len(up.seen) == 2


async def test_a_call_is_not_begun_when_only_the_answers_reserve_is_left() -> None:
    request = {"answer_reserve": "1s"}
    async with upstream() as up, toolbox(http_tool(up), request=request) as box:
        chain = run(box)
        chain.deadline = Deadline.after(1.02)
        (outcome,) = await chain.execute([ToolCall("1", "look", "{}")])

        assert kind(outcome) == "deadline_exhausted"
        assert len(up.seen) == 0
        assert chain.deadline.remaining() > 0.9


async def test_a_tool_that_hangs_leaves_the_reserve() -> None:
    request = {"answer_reserve": "1s"}
    slow = {"deadline": "9s", "attempt_timeout": "9s"}
    async with upstream(always=says(1, after=9)) as up:
        async with toolbox(http_tool(up, **slow), request=request) as box:
            chain = run(box)
            chain.deadline = Deadline.after(1.5)
            (outcome,) = await chain.execute([ToolCall("1", "look", "{}")])
            left = chain.deadline.remaining()

    assert kind(outcome) == "timeout"
    assert 0.9 < left < 1.05
    assert not chain.begin_turn() or chain.deadline.remaining() > 1


@pytest.mark.parametrize(("method", "arrives"), [("POST", True), ("GET", False)])
async def test_when_the_client_leaves_writes_are_finished_and_reads_are_not(
    method: str, *, arrives: bool
) -> None:
    ended: list[ToolResult] = []

    async def record(outcome: ToolResult) -> None:
        ended.append(outcome)

    async with upstream(always=says("done", after=0.3)) as up:
        async with toolbox(http_tool(up, method=method)) as box:
            with anyio.move_on_after(0.1):
                await run(box, record=record).execute([ToolCall("1", "look", "{}")])
            await until(lambda: up.open == 0 or len(ended) == 2)

    assert [one.effect for one in ended] == (["unknown", "applied"] if arrives else [])


async def test_a_run_that_is_taken_up_again_does_not_repeat_what_was_done() -> None:
    ended: list[ToolResult] = []

    async def record(outcome: ToolResult) -> None:
        ended.append(outcome)

    async with upstream() as up, toolbox(http_tool(up, method="POST")) as box:
        first = run(box, record=record)
        await first.execute([ToolCall("1", "look", '{"id": 1}')])
        second = run(box, memory=dict(first.memory))
        (again,) = await second.execute([ToolCall("2", "look", '{"id": 1}')])

    assert again.ok
    assert len(up.seen) == 1


async def test_a_write_that_was_begun_when_the_process_ended_is_not_begun_again() -> None:
    recorded: list[ToolResult] = []

    async def record(outcome: ToolResult) -> None:
        recorded.append(outcome)

    async with upstream() as up, toolbox(http_tool(up, method="POST")) as box:
        first = run(box, record=record)
        await first.execute([ToolCall("1", "look", '{"id": 1}')])
        begun, done = recorded
        second = run(box, memory={first.dedup_key(ToolCall("1", "look", '{"id": 1}')): begun})
        (again,) = await second.execute([ToolCall("2", "look", '{"id": 1}')])

    assert (begun.effect, done.effect, again.effect) == ("unknown", "applied", "unknown")
    assert not again.ok
    assert len(up.seen) == 1


async def test_a_run_is_settled_once_what_outlives_its_client_has_ended() -> None:
    async with upstream(always=says("done", after=0.3)) as up:
        async with toolbox(http_tool(up, method="POST")) as box:
            chain = run(box)
            with anyio.move_on_after(0.1):
                await chain.execute([ToolCall("1", "look", "{}")])
            await chain.join()

            assert [outcome.effect for outcome in chain.memory.values()] == ["applied"]


async def test_a_call_that_needs_approval_is_not_run_without_it() -> None:
    approval = {"when": "args.id > `10`"}
    async with upstream() as up, toolbox(http_tool(up, approval=approval)) as box:
        small = await call(box, '{"id": 1}')
        large = await call(box, '{"id": 11}')
        (approved,) = await run(box).execute(
            [ToolCall("1", "look", '{"id": 11}')], frozenset({"1"})
        )

    assert [kind(small), kind(large), kind(approved)] == ["ok", "approval_required", "ok"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_chains_of_three_complete_at_a_tenth_of_faults_with_little_more_load(
    seed: int,
) -> None:
    """0.9^3 of chains would complete without retries: 73 %."""
    chance = random.Random(seed)
    script = [says({}, 503) if chance.random() < 0.1 else says(n) for n in range(4000)]
    quiet = {"breaker": {"enabled": False}, "retry": {"base": "0ms"}}
    async with upstream(*script) as up:
        tools = [http_tool(up, name, **quiet) for name in ("a", "b", "c")]
        async with toolbox(*tools) as box:
            complete = 0
            for n in range(300):
                chain = run(box)
                ends = [(await chain.execute([ToolCall(name, name, f'{{"id": {n}}}')]))[0]
                        for name in ("a", "b", "c")]  # fmt: skip
                complete += all(end.ok for end in ends)

    assert complete >= 0.99 * 300
    assert len(up.seen) <= 1.2 * 900
