"""Falsework's time over vLLM's, side by side: both servers run, each case alternates between them.

    python bench/against_vllm.py --model FOLDER [--runs 9] [--report docs/bench.md]

vLLM is its own OpenAI server in its best setting for tools (default backend, Hermes parser, schemas
enforced); the model, the machine and the requests are the same. Every case is shown.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import importlib.metadata
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
from cases import CASES, WEATHER, Case, following, tool

Json = dict[str, Any]
NAMES = ("falsework", "vllm")


def commands(model: str, ports: dict[str, int]) -> dict[str, list[str]]:
    """Return how the two servers are started."""
    falsework = [Path(sys.executable).with_name("falsework"), "serve", model]
    vllm = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    best = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    strict = ["--tool-strict-level", "parameter"]
    same = ["--max-model-len", "4096"]
    return {
        "falsework": [str(part) for part in (*falsework, *same, "--port", ports["falsework"])],
        "vllm": [str(part) for part in (*vllm, *best, *strict, *same, "--enforce-eager",
                                        "--port", ports["vllm"], "--served-model-name", "model")],
    }  # fmt: skip


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """Run a server; its log goes to a file."""
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        process.kill()


async def ready(client: openai.AsyncOpenAI) -> str:
    """Return the model's name once the server answers."""
    for _ in range(300):
        with contextlib.suppress(openai.APIError):
            return (await client.models.list()).data[0].id
        await asyncio.sleep(1)
    msg = "a server didn't start; see its log"
    raise RuntimeError(msg)


async def timed(client: openai.AsyncOpenAI, model: str, case: Case) -> tuple[float, str]:
    """Return the seconds of a case and what came out."""
    request, said = dict(case.request), []
    begun = time.perf_counter()
    for step in range(len(case.results) + 1):
        if case.results and step == len(case.results):
            request = {**request, "tool_choice": "none", "max_tokens": 48}
        reply = await client.chat.completions.create(model=model, **request)
        message = reply.choices[0].message.model_dump(exclude_none=True)
        calls = message.get("tool_calls") or []
        said.append(
            "; ".join(call["function"]["arguments"] for call in calls) or message["content"]
        )
        if step < len(case.results):
            request = following(request, message, case.results[step])
    return time.perf_counter() - begun, " | ".join(said)


async def crowd(client: openai.AsyncOpenAI, model: str) -> tuple[float, str]:
    """Return the seconds that 16 clients need for 48 calls of 50 different tools."""
    tools = [
        tool(f"tool_{n}", f"Tool number {n}.", **WEATHER["function"]["parameters"]["properties"])
        for n in range(50)
    ]
    gate = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        chosen = tools[number % 50]
        async with gate:
            await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": f"Weather of city {number}?"}],
                tools=[chosen], tool_choice="required", parallel_tool_calls=False,
                temperature=0, max_tokens=128,
            )  # fmt: skip

    begun = time.perf_counter()
    await asyncio.gather(*map(one, range(48)))
    return time.perf_counter() - begun, "48 calls"


async def measure(
    options: argparse.Namespace, clients: dict[str, openai.AsyncOpenAI]
) -> list[Json]:
    """Return a row per case: the medians, the ratio, what each said."""
    models = {name: await ready(client) for name, client in clients.items()}
    jobs = [(case.name, case.goal, case) for case in CASES]
    jobs.append(("48 calls, 16 clients at once, 50 tools", "≤ 0.5", None))
    rows = []
    for name, goal, case in jobs:
        runs = options.runs if case else max(3, options.runs // 3)
        seconds: dict[str, list[float]] = {server: [] for server in NAMES}
        said = {}
        for number in range(runs + 1):
            for server in NAMES if number % 2 else NAMES[::-1]:
                ask = (
                    timed(clients[server], models[server], case)
                    if case
                    else crowd(clients[server], models[server])
                )
                took, said[server] = await ask
                if number:  # the first one warms both up
                    seconds[server].append(took)
        medians = {server: statistics.median(seconds[server]) for server in NAMES}
        ratio = medians["falsework"] / medians["vllm"]
        rows.append({"case": name, "goal": goal, "ratio": ratio, "said": said, **medians})
        print(
            f"{name:42} {medians['falsework']:7.3f} s {medians['vllm']:7.3f} s  {ratio:5.2f}  (goal {goal})",
            flush=True,
        )
        print("   ", json.dumps(said, ensure_ascii=False)[:300], flush=True)
    return rows


def report(rows: list[Json], options: argparse.Namespace) -> str:
    """Return the table as Markdown, with versions, machine and date."""
    versions = {n: importlib.metadata.version(n) for n in ("vllm-cpu", "outlines_core", "torch")}
    lines = [
        "# Falsework's time over vLLM's own server", "",
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, " + ", ".join(f"{n} {v}" for n, v in versions.items())
        + f"; model {Path(options.model).name}, greedy, medians of {options.runs} alternating runs.", "",
        "| case | Falsework, s | vLLM, s | ratio | goal |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {row['case']} | {row['falsework']:.3f} | {row['vllm']:.3f} | {row['ratio']:.2f} | {row['goal']} |"
        for row in rows
    ]
    return "\n".join([*lines, "", "Made by `bench/against_vllm.py`.", ""])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a folder with the model")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--report", type=Path, help="where to write the table")
    options = parser.parse_args()
    ports = {name: free_port() for name in NAMES}
    logs = Path("/tmp")
    with contextlib.ExitStack() as stack:
        for name, command in commands(options.model, ports).items():
            stack.enter_context(running(command, logs / f"bench-{name}.log"))
        clients = {
            name: openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none",
                                     max_retries=0, timeout=600)
            for name, port in ports.items()
        }  # fmt: skip
        rows = asyncio.run(measure(options, clients))
    if options.report:
        options.report.write_text(report(rows, options), "utf-8")


if __name__ == "__main__":
    main()
