"""Functions as tools: whatever they do, the server goes on, and nothing of them stays behind."""

import json
import os
import subprocess
import sys
import threading
from typing import Any

import anyio
import psutil
import pytest
from support.upstream import Json, call, kind, toolbox

from falsework.server.tools.deadline import Deadline
from falsework.server.tools.executors.base import AttemptContext

pytestmark = pytest.mark.anyio


def function(name: str, **fields: Any) -> Json:
    once = {"retry": {"max_attempts": 1}, "breaker": {"enabled": False}}
    python = {"callable": f"support.python_tools:{name}"}
    return {"name": name, "parameters": {"type": "object"}, "python": python, **once, **fields}


@pytest.mark.parametrize("effect", ["read", "write"])
@pytest.mark.parametrize("name", ["leave", "interrupt", "cancel"])
async def test_a_function_that_asks_to_end_ends_its_own_call(name: str, effect: str) -> None:
    tools = [function(name, effect=effect), function("double", effect=effect)]
    async with toolbox(*tools) as box:
        outcome = await call(box, name=name)
        after = await call(box, '{"number": 2}', "double")

    assert (kind(outcome), after.value) == ("tool_error", 4)


@pytest.mark.parametrize("effect", ["read", "write"])
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("when", "{}", "bad_response"),
        ("half", "{}", "bad_response"),
        ("longest", '{"length": 5000}', "too_large"),
        ("longest", '{"length": 500}', "ok"),
        ("shout", "{}", "ok"),
    ],
)
async def test_what_a_function_returns_is_json_of_a_bounded_size(
    name: str, arguments: str, expected: str, effect: str
) -> None:
    if (name, effect) == ("shout", "read"):
        pytest.skip("in a thread it would print what the server prints")
    tool = function(name, effect=effect, limits={"max_response_bytes": "1KiB"})
    async with toolbox(tool) as box:
        outcomes = [await call(box, arguments, name) for _ in range(2)]

    assert [kind(outcome) for outcome in outcomes] == [expected] * 2


async def test_threads_that_do_not_listen_are_never_more_than_the_tool_may_have() -> None:
    places = {"max_concurrent": 2}
    tool = function("sleep", effect="read", attempt_timeout="60ms", bulkhead=places)
    before = threading.active_count()
    async with toolbox(tool) as box:
        kinds = [kind(await call(box, '{"seconds": 0.5}', "sleep")) for _ in range(6)]
        assert threading.active_count() - before <= 2
        await anyio.sleep(0.5)
        after = await call(box, '{"seconds": 0}', "sleep")

    assert kinds == ["timeout"] * 2 + ["overloaded"] * 4
    assert after.ok


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.06, 0.3])
async def test_a_call_that_is_given_up_leaves_no_process(seconds: float) -> None:
    async with toolbox(function("sleep")) as box:
        for _ in range(3):
            with anyio.move_on_after(seconds):
                await box.tools["sleep"].executor.execute({"seconds": 30}, _ticket())
        assert [*_workers()] == []


async def test_processes_end_with_the_tools_and_are_used_again_until_then() -> None:
    async with toolbox(function("double")) as box:
        for number in range(3):
            await call(box, f'{{"number": {number}}}', "double")
        assert len([*_workers()]) == 1

    assert [*_workers()] == []


def _workers() -> Any:
    children = psutil.Process(os.getpid()).children()
    alive = (one for one in children if one.status() != psutil.STATUS_ZOMBIE)  # of other tests
    return (one for one in alive if "python_worker import worker_main" in " ".join(one.cmdline()))


def _ticket() -> AttemptContext:
    return AttemptContext(Deadline.after(5), "call_1")


def test_a_worker_process_imports_nothing_of_the_server_but_its_own_module() -> None:
    script = "import falsework.server.python_worker, json, sys; print(json.dumps([*sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    shown = subprocess.check_output([sys.executable, "-c", script], env=environment)

    imported = json.loads(shown)
    assert "falsework.server.python_worker" in imported
    assert not {"falsework.server.tools", "mcp", "httpx", "pydantic", "torch"} & {*imported}
