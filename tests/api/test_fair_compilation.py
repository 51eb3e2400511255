"""New schemas are compiled in turn for those who send them: one key's queue is no other's."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from support.chat_bodies import Json, tool
from support.clients import CHAT, HELLO, sent
from support.scripted_app import Running, calls, running, scaffold_of

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.fair_limiter import FairLimiter
from falsework.server.generation.turn import TurnBuilder


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


async def order_of(limiter: FairLimiter, owners: str) -> str:
    """Return in which order the slots were granted to owners that come at once."""
    granted: list[str] = []

    async def work(owner: str) -> None:
        async with limiter.hold(owner):
            granted.append(owner)
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        for owner in owners:
            tasks.start_soon(work, owner)
    return "".join(granted)


@pytest.mark.anyio
async def test_owners_take_turns_whoever_waits_longest() -> None:
    assert await order_of(FairLimiter(1), "aaaabc") == "abcaaa"


@pytest.mark.anyio
async def test_an_owner_alone_has_all_slots_and_leaves_one_where_there_are_others() -> None:
    limiter = FairLimiter(3)
    held: list[str] = []

    async def work(owner: str, until: anyio.Event) -> None:
        async with limiter.hold(owner):
            held.append(owner)
            await until.wait()

    first, second = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(work, "a", first)
        await anyio.wait_all_tasks_blocked()
        alone = list(held)
        tasks.start_soon(work, "b", second)
        tasks.start_soon(work, "b", second)
        await anyio.wait_all_tasks_blocked()
        first.set()
        await anyio.wait_all_tasks_blocked()
        second.set()

    assert alone == ["a"] * 3
    assert sorted(held) == ["a"] * 4 + ["b"] * 2


@pytest.mark.anyio
async def test_who_leaves_while_waiting_takes_no_slot() -> None:
    limiter = FairLimiter(1)
    async with limiter.hold("a"):
        with anyio.move_on_after(0.01):
            async with limiter.hold("b"):
                pytest.fail("the slot is taken")

    assert await order_of(limiter, "ab") == "ab"


def wide(number: int, count: int = 40) -> Json:
    """Return a tool whose schema nobody has sent before."""
    names = {f"p{number}_{i}": {"type": "string", "maxLength": 300 + i} for i in range(count)}
    return tool("f", parameters={"type": "object", "properties": names})


def test_four_victims_wait_no_longer_beside_two_that_flood_with_new_schemas(
    scaffold: TurnBuilder,
) -> None:
    over = threading.Event()

    def ask(house: Running, number: int, key: str) -> float:
        began = time.monotonic()
        reply = sent(house, "POST", CHAT, {**HELLO, "tools": [wide(number)]},
                     timeout=30, authorization=f"Bearer {key}")  # fmt: skip
        assert reply.status == 200
        return time.monotonic() - began

    def flood(house: Running, attacker: int) -> None:
        number = 10_000 * attacker
        with ThreadPoolExecutor(8) as requests:
            while not over.is_set():
                numbers = range(number, number + 8)
                list(requests.map(lambda each: ask(house, each, f"attacker{attacker}"), numbers))
                number += 8

    engine = ScriptedEngine(ScriptedReply(["Hello."]))
    with running(engine, scaffold) as house, ThreadPoolExecutor(6) as clients:
        floods = [clients.submit(flood, house, attacker) for attacker in (1, 2)]
        waits = list(clients.map(lambda i: ask(house, 900_000 + i, f"victim{i}"), range(4)))
        over.set()
        for each in floods:
            each.result()

    assert max(waits) < 20


def test_a_huge_name_of_a_property_is_no_failure_of_the_server(scaffold: TurnBuilder) -> None:
    parameters = {"type": "object", "properties": {"x" * 100_000: {"type": "string"}}}
    engine = ScriptedEngine(ScriptedReply([calls(("f", "{}"))]))
    with running(engine, scaffold) as house:
        began = time.monotonic()
        reply = sent(house, "POST", CHAT, {**HELLO, "tools": [tool("f", parameters=parameters)]},
                     timeout=30)  # fmt: skip

    assert reply.status in {200, 400}
    assert time.monotonic() - began < 15
