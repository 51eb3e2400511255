"""An engine that dies is started again, as often as the setting allows."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from falsework.server.engines import supervisor
from falsework.server.engines.base import EngineDeadError, EngineStartError, SamplingParams
from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.engines.supervisor import RESTART_WINDOW, EngineSupervisor

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the engine without a pause."""
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0)


@dataclass
class Starter:
    """Starts engines, each of which replies with its number; `fails` starts raise first."""

    fails: int = 0
    started: list[ScriptedEngine] = field(default_factory=list)
    may_start: asyncio.Event = field(default_factory=asyncio.Event)
    now: float = 1000.0

    async def start(self) -> ScriptedEngine:
        await self.may_start.wait()
        self.now += 7
        if self.fails:
            self.fails -= 1
            raise EngineStartError("Engine core initialization failed.")
        self.started.append(ScriptedEngine(ScriptedReply([f"engine {len(self.started)}"])))
        return self.started[-1]

    def supervised(self, max_restarts: int) -> EngineSupervisor:
        self.started.append(ScriptedEngine(ScriptedReply(["engine 0"])))
        return EngineSupervisor(
            self.started[0],
            self.start,
            max_restarts=max_restarts,
            start_seconds=20,
            clock=lambda: self.now,
        )


async def reply(engine: EngineSupervisor) -> str:
    deltas = engine.generate([1], SamplingParams(8), None, "request")
    return "".join([delta.text async for delta in deltas])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - polled
            await asyncio.sleep(0)


async def test_requests_are_answered_again_after_the_engine_died() -> None:
    starter = Starter()
    starter.may_start.set()
    engine = starter.supervised(max_restarts=1)
    before = await reply(engine)

    async with asyncio.TaskGroup() as tasks:
        supervising = tasks.create_task(engine.supervise())
        starter.started[0].alive = False
        await until(lambda: len(starter.started) == 2)
        await until(lambda: not starter.started[-1].is_dead)
        await engine.check_health()
        after = await reply(engine)
        supervising.cancel()

    assert (before, after) == ("engine 0", "engine 1")


async def test_until_then_requests_are_refused_with_a_time_to_come_again() -> None:
    starter = Starter()
    engine = starter.supervised(max_restarts=1)
    async with asyncio.TaskGroup() as tasks:
        supervising = tasks.create_task(engine.supervise())
        starter.started[0].alive = False
        with pytest.raises(EngineDeadError) as at_first:
            await reply(engine)
        await asyncio.sleep(0.01)
        starter.now += 15
        with pytest.raises(EngineDeadError) as later:
            await engine.check_health()
        supervising.cancel()

    assert at_first.value.status == 503
    assert at_first.value.headers == {"retry-after": "20"}
    assert later.value.headers == {"retry-after": "5"}


@pytest.mark.parametrize("max_restarts", [0, 2])
async def test_supervision_ends_when_the_limit_is_reached(max_restarts: int) -> None:
    starter = Starter()
    starter.may_start.set()
    engine = starter.supervised(max_restarts)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.supervise())
        for number in range(max_restarts + 1):
            await until(lambda number=number: len(starter.started) == number + 1)  # type: ignore[misc]
            starter.started[-1].alive = False

    assert len(starter.started) == max_restarts + 1
    with pytest.raises(EngineDeadError):
        await reply(engine)


async def test_a_start_that_fails_is_one_of_the_tries() -> None:
    starter = Starter(fails=2)
    starter.may_start.set()
    engine = starter.supervised(max_restarts=2)
    starter.started[0].alive = False

    async with asyncio.timeout(5):
        await engine.supervise()

    assert len(starter.started) == 1


async def test_restarts_of_an_hour_ago_do_not_count() -> None:
    starter = Starter()
    starter.may_start.set()
    engine = starter.supervised(max_restarts=1)

    async with asyncio.TaskGroup() as tasks:
        supervising = tasks.create_task(engine.supervise())
        starter.started[0].alive = False
        await until(lambda: len(starter.started) == 2)
        starter.now += RESTART_WINDOW
        starter.started[1].alive = False
        await until(lambda: len(starter.started) == 3)
        supervising.cancel()

    assert await reply(engine) == "engine 2"
