"""Two replicas on Ray Serve over one, and what Ray's proxy adds to a call; the engine is scripted.

    python bench/replicas.py [--calls 300] [--clients 64] [--tool-seconds 0.3]

Calls wait for a tool of the server's that takes its time. A replica runs at most so many of them at
once (the tool's bulkhead), and that is what a second replica doubles. Needs Ray: `make test-ray`.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.ray_app import FOUND
from support.server_process import free_port
from support.tool_app import an_upstream
from support.upstream import http_tool, says

TESTS = Path(__file__).resolve().parents[1] / "tests"
BULKHEAD = {"max_concurrent": 4, "max_queue": 500, "queue_timeout": "60s"}
LOOK = [{"type": "server_tool", "name": "look"}]


@contextmanager
def replicas(count: int, tools: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Run replicas; yield their address and that of the same server without Ray."""
    port, bare = free_port(), free_port()
    database = f"sqlite:///{folder}/{count}.db"
    arguments = {"replicas": count, "cpus_per_replica": 0.1, "tools": str(tools)}
    command = [
        sys.executable,
        TESTS / "support/ray_process.py",
        str(port),
        json.dumps({**arguments, "database": database}),
        str(bare),
    ]
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{bare}/v1"
    finally:
        process.communicate()


async def ask(client: httpx2.AsyncClient, url: str, text: str, **fields: Any) -> float:
    """Return the seconds of a call."""
    began = time.perf_counter()
    body = {"model": "smollm2", "messages": [{"role": "user", "content": text}], **fields}
    reply = await client.post(f"{url}/chat/completions", json=body)
    reply.raise_for_status()
    return time.perf_counter() - began


async def calls_per_second(url: str, asked: argparse.Namespace) -> float:
    """Return how many calls are answered a second by many clients at once."""
    limit = asyncio.Semaphore(asked.clients)
    async with httpx2.AsyncClient(timeout=120) as client:

        async def one(number: int) -> None:
            async with limit:
                await ask(client, url, f"look {number}", tools=LOOK)

        await asyncio.gather(*(one(-number) for number in range(1, 9)))
        began = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(asked.calls)))
        return float(asked.calls / (time.perf_counter() - began))


async def overhead(through: str, bare: str, rounds: int) -> tuple[float, float]:
    """Return the medians of a call through the proxy and without it, in turns."""
    times: dict[str, list[float]] = {through: [], bare: []}
    async with httpx2.AsyncClient(timeout=60) as client:
        for number in range(rounds):
            for url, taken in times.items():
                taken.append(await ask(client, url, f"hello {number}"))
    return statistics.median(times[through]), statistics.median(times[bare])


def main() -> None:
    """Print the ratio and the overhead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tool-seconds", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=200, help="Calls that the proxy is timed by.")
    asked = parser.parse_args()
    rates = {}
    with (
        tempfile.TemporaryDirectory() as name,
        an_upstream(always=says({FOUND: True}, after=asked.tool_seconds)) as up,
    ):
        tools = Path(name) / "tools.yaml"
        tool = http_tool(up, "look", bulkhead=BULKHEAD, deadline="60s")
        tools.write_text(yaml.safe_dump({"request": {"deadline": "120s"}, "tools": [tool]}))
        for count in (1, 2):
            with replicas(count, tools, Path(name)) as (url, bare):
                rates[count] = asyncio.run(calls_per_second(url, asked))
                print(f"{rates[count]:.1f} calls/s of {count} replicas", flush=True)
                if count == 1:
                    through, alone = asyncio.run(overhead(url, bare, asked.rounds))
                    print(
                        f"a call through the proxy: {1000 * through:.1f} ms at the median, "
                        f"without {1000 * alone:.1f} ms",
                        flush=True,
                    )
    print(f"{rates[2] / rates[1]:.2f} times the calls of one replica")


if __name__ == "__main__":
    main()
