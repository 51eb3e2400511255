"""The tool runtime: its overhead, its behaviour under faults, the load it puts on upstreams.

    python bench/runtime.py [--writes 10000] [--retried 200]

Upstreams run in the same process, on the loopback; faults are drawn with a fixed seed.
"""

import argparse
import asyncio
import itertools
import random
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import openai

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support import scripted_app, tool_app
from support.lost_answers import written
from support.upstream import call, calls, hangs, http_tool, kind, run, says, toolbox, upstream

from falsework.server.models import resolve_model
from falsework.server.observability.logging import configure_logging
from falsework.server.tools.tool_call import ToolCall

FAULTS = 0.1
QUIET = {"breaker": {"enabled": False}, "retry": {"base": "0ms"}}
WIDE = {"bulkhead": {"max_concurrent": 500, "max_queue": 5000}}


async def overhead(_: argparse.Namespace) -> str:
    """Milliseconds that a call takes beyond the bare HTTP request."""
    ours, bare = [], []
    async with upstream() as up, toolbox(http_tool(up)) as box, httpx2.AsyncClient() as client:
        for number in range(1000):
            began = time.perf_counter()
            assert (await call(box, f'{{"id": {number}}}')).ok
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            (await client.get(f"{up.url}/look", params={"id": number})).json()
            bare.append(time.perf_counter() - began)
    more = 1000 * (statistics.median(ours) - statistics.median(bare))
    return f"{more:.2f} ms (bare {1000 * statistics.median(bare):.2f} ms)"


async def chains(_: argparse.Namespace) -> str:
    """Chains of three tools that complete at 10 % faults a call, and the load on the upstream."""
    draw = random.Random(1)
    script = [says({}, 503) if draw.random() < FAULTS else says(n) for n in range(8000)]
    complete = 0
    async with upstream(*script) as up:
        tools = [http_tool(up, name, **QUIET) for name in "abc"]
        async with toolbox(*tools) as box:
            for number in range(1000):
                chain = run(box)
                ends = [
                    (await chain.call([ToolCall(name, name, f'{{"id": {number}}}')]))[0].ok
                    for name in "abc"
                ]
                complete += all(ends)
        load = len(up.seen) / 3000
    return f"{complete / 10:.1f} % complete, load {load:.3f}"


async def outage(_: argparse.Namespace) -> str:
    """1,000 calls of an upstream that is down, with the breaker and without."""
    async with upstream(always=says({}, 503)) as up:
        async with toolbox(http_tool(up, retry={"base": "0ms"})) as box:
            rejected = []
            for number in range(1000):
                began = time.perf_counter()
                if kind(await call(box, f'{{"id": {number}}}')) == "circuit_open":
                    rejected.append(1000 * (time.perf_counter() - began))
            with_breaker = len(up.seen)
    async with upstream(always=says({}, 503)) as up, toolbox(http_tool(up, **QUIET)) as box:
        for number in range(1000):
            await call(box, f'{{"id": {number}}}')
        without = len(up.seen)
    slowest = statistics.quantiles(rejected, n=100)[98]
    return f"{with_breaker} attempts; without breaker {without}; rejected in {slowest:.2f} ms (p99)"


async def half_open(_: argparse.Namespace) -> str:
    """Of 50 callers at once, how many a half-open breaker lets through."""
    breaker = {"min_calls": 2, "open_for": "100ms"}
    async with upstream(always=says({}, 500)) as up:
        async with toolbox(http_tool(up, breaker=breaker, **WIDE)) as box:
            for number in range(5):
                await call(box, f'{{"id": {number}}}')
            await anyio.sleep(0.2)
            before = len(up.seen)
            up.always = says("fine", after=0.2)
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(call, box, f'{{"id": {100 + number}}}')
            admitted = len(up.seen) - before
    return f"{admitted} of 50"


async def writes(options: argparse.Namespace) -> str:
    """Writes whose answers get lost; the model repeats those that may be repeated."""
    ledger, results = await written(options.writes)
    return f"{len(ledger.doubled())} of {len(results)} doubled"


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return head + await reader.readexactly(int(length[1]) if length else 0)


@asynccontextmanager
async def losing(port: int) -> AsyncIterator[int]:
    """A proxy to a server; every other connection is cut, before its reply or instead of it."""
    turns = itertools.cycle(["early", "", "late", ""])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, inside = await asyncio.open_connection("127.0.0.1", port)
        lost = next(turns)
        inside.write(await _message(reader))
        if lost == "early":
            await asyncio.sleep(0.03)
        else:
            reply = await _message(inner)
            writer.write(b"" if lost else reply)
        inside.close()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def retried(options: argparse.Namespace) -> str:
    """Writes through the whole server, for an OpenAI SDK whose connections get lost."""
    scaffold = scripted_app.scaffold_of(Path(resolve_model("smollm2", print)))
    turns = [scripted_app.calls(("look", "{}")), "Done."] * (3 * options.retried)
    async with upstream(always=says("done", after=0.06)) as up:
        file = {"tools": [http_tool(up, method="POST")]}
        with tool_app.house_of(scaffold, *turns, file=file) as house:
            async with losing(house.port) as port:

                def send() -> None:
                    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k") as sdk:
                        for number in range(options.retried):
                            sdk.chat.completions.create(
                                model="smollm2",
                                messages=[{"role": "user", "content": f"Write {number}."}],
                                tools=[{"type": "server_tool", "name": "look"}],  # type: ignore[list-item]
                            )

                await anyio.to_thread.run_sync(send)
    return f"{len(up.seen) - options.retried} of {options.retried} doubled"


async def hung(_: argparse.Namespace) -> str:
    """Milliseconds after its deadline at which a call of a hung tool ends."""
    late = []
    async with upstream(always=hangs) as up:
        slow = {"attempt_timeout": "9s", "deadline": "500ms"}
        async with toolbox(http_tool(up, **slow)) as box:
            for number in range(10):
                began = time.perf_counter()
                await call(box, f'{{"id": {number}}}')
                late.append(1000 * (time.perf_counter() - began) - 500)
    return f"{max(late):.0f} ms"


async def parallel(_: argparse.Namespace) -> str:
    """Four reads of 500 ms in one reply."""
    async with upstream(always=says("late", after=0.5)) as up, toolbox(http_tool(up)) as box:
        began = time.perf_counter()
        await calls(box, [("look", f'{{"id": {number}}}') for number in range(4)])
        return f"{1000 * (time.perf_counter() - began):.0f} ms"


FIGURES: dict[str, tuple[str, Callable[[argparse.Namespace], Awaitable[str]]]] = {
    "overhead of a call": ("≤ 1 ms", overhead),
    "chain of three, 10 % faults": ("≥ 99 %, load ≤ 1.2", chains),
    "outage, 1,000 calls": ("≤ 1.2 times and the burst; ≤ 5 ms", outage),
    "half-open breaker": ("1 of 50", half_open),
    "lost answers of writes": ("0", writes),
    "lost replies, SDK retries": ("0", retried),
    "hung tool, beyond its deadline": ("≤ 100 ms", hung),
    "four reads of 500 ms": ("≤ 700 ms", parallel),
}


async def measure(options: argparse.Namespace) -> None:
    """Print a row for each figure."""
    print("| what | goal | measured |\n|---|---|---|")
    for name, (goal, figure) in FIGURES.items():
        print(f"| {name} | {goal} | {await figure(options)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writes", type=int, default=10_000)
    parser.add_argument("--retried", type=int, default=200)
    configure_logging("error")
    anyio.run(measure, parser.parse_args())
