"""Falsework's time over that of vLLM's own server: all run at once, each case alternates.

    python bench/against_vllm.py [--model FOLDER] [--runs 9] [--report docs/bench.md]

vLLM runs in its best setting for tools (default backend, its tool parser, schemas enforced,
compiled, all cores, small blocks, numbers that the machine is good at), and a second time with
n-grams as drafts; Falsework as it starts by itself, not compiled on a CPU. Model, machine and
requests are the same; every case is measured twice, with the machine idle and beside a process that
computes all the time, and shown.
"""

import argparse
import contextlib
import importlib.metadata
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import matplotlib as mpl
import psutil
from matplotlib import pyplot as plt

from falsework.bench.cases import CASES
from falsework.bench.endpoint import Endpoint
from falsework.bench.report import environment, steadiness, table, transcript
from falsework.bench.runner import CaseResult, run_alternating
from falsework.server.engines.vllm.config import dtype
from falsework.server.models import resolve_model

NGRAM = '{"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_max": 4}'
LENGTH = "8192"
LOGS = Path("/tmp")


def commands(model: str) -> dict[str, list[str]]:
    """Return the command of each server, without its port."""
    falsework = [str(Path(sys.executable).with_name("falsework")), "serve", model]
    vllm = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        model,
        "--enable-auto-tool-choice",
        "--tool-call-parser",
        "hermes",
        "--tool-strict-level",
        "parameter",
        "--dtype",
        dtype("auto", on_cpu=True),
        "--max-model-len",
        LENGTH,
        "--served-model-name",
        "model",
        "--block-size",
        "32",  # as ours: less of a prompt is read again
    ]
    return {
        "Falsework": [*falsework, "--max-model-len", LENGTH],
        "vLLM": vllm,
        "vLLM with n-grams": [*vllm, "--speculative-config", NGRAM],
    }


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(name: str, command: Sequence[str]) -> Iterator[Endpoint]:
    """Run a server; its log goes to a file."""
    port = free_port()
    cores = f"0-{(psutil.cpu_count(logical=False) or 1) - 1}"
    bound = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores}
    environment = {**os.environ, **bound}
    log = LOGS / f"bench-{name.replace(' ', '-').lower()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=file, stderr=file, env=environment
        )
    try:
        yield Endpoint(name, f"http://127.0.0.1:{port}/v1")
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        process.kill()


async def measured(endpoints: Sequence[Endpoint], runs: int, only: str) -> list[CaseResult]:
    """Return a row per case, and print it."""
    rows = []
    cases = [case for case in CASES if re.search(only, case.name)]
    async with contextlib.AsyncExitStack() as stack:
        for one in endpoints:
            await stack.enter_async_context(one)
            await one.connect(patience=600)
        names = [one.name for one in endpoints]
        for busy in (0, 1):
            async for row in run_alternating(endpoints, cases, runs, busy):
                rows.append(row)
                line = table(names, [row]).splitlines()[2]
                print(line, transcript(names, [row]), sep="\n", flush=True)
        print(steadiness(names, rows))
    return rows


def draw(rows: Sequence[CaseResult], file: Path) -> None:
    """Draw the shares of vLLM's better setting as an SVG."""
    mpl.rcParams["svg.hashsalt"] = "falsework"
    rows = [row for row in rows if not row.busy]
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.2), layout="constrained")
    names = [row.case.name for row in rows]
    best = [min(one.median for one in row.results[1:]) for row in rows]
    shares = [row.results[0].median / other for row, other in zip(rows, best, strict=True)]
    bars = axes.barh(names, shares, color="#1f6f8b")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="#99443b", linewidth=1)
    axes.set_xlabel("time, as a share of what vLLM's own server needs in its better setting")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder with the model; otherwise the built-in one")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--only", default="", help="cases whose name matches this expression")
    parser.add_argument("--without", default="", help="a server to leave out")
    parser.add_argument("--report", type=Path, help="where to write the table and, .svg, the chart")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        endpoints = [
            stack.enter_context(running(name, command))
            for name, command in commands(
                str(options.model or resolve_model("smollm2", print))
            ).items()
            if name != options.without
        ]
        rows = anyio.run(measured, endpoints, options.runs, options.only)
    if options.report:
        names = [one.name for one in endpoints]
        engine = f"vllm-cpu {importlib.metadata.version('vllm-cpu')}"
        numbers = dtype("auto", on_cpu=True)
        made = f"{environment(options.runs)} {engine}, compiled, {numbers}; Falsework not compiled."
        chart = options.report.with_suffix(".svg")
        draw(rows, chart)
        options.report.write_text(
            f"# Against vLLM's own server\n\n![The shares]({chart.name})\n\n{made}\n\n"
            f"{table(names, rows)}\n## Beside a busy process\n\nEach server's time beside another "
            "process that computes all the time, over its own time without: on a machine of few "
            f"cores.\n\n{steadiness(names, rows)}\n## Replies\n\n{transcript(names, rows)}",
            "utf-8",
        )


if __name__ == "__main__":
    main()
