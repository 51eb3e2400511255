"""Runs cases on several servers in alternation, so that noise of the machine hits all alike."""

import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from falsework.bench.cases import Case, Json, crowd_requests, next_request
from falsework.bench.endpoint import Endpoint

ANSWER_TOKENS = 48
"""Token limit of the answer at the end of a chain."""


@dataclass(frozen=True)
class EndpointResult:
    """The times and the last replies of one server for one case."""

    seconds: tuple[float, ...]
    """One for each run."""
    calls: int
    """Tool calls in the replies of the last run."""
    text: str

    @property
    def median(self) -> float:
        """The median, per call where there are calls: two models may differ in their number."""
        return statistics.median(self.seconds) / max(1, self.calls)


@dataclass(frozen=True)
class CaseResult:
    """A case and the result of each server, in the servers' order."""

    case: Case
    results: tuple[EndpointResult, ...]
    busy: int = 0
    """Other processes that computed meanwhile."""


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Let other processes compute all the time, each on a core."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def run_alternating(
    endpoints: Sequence[Endpoint], cases: Sequence[Case], runs: int, busy: int = 0
) -> AsyncIterator[CaseResult]:
    """Yield a row per case, measured beside `busy` others; the first run warms up."""
    for case in cases:
        with busy_processes(busy):
            row = await _row(endpoints, case, runs, busy)
        yield row


async def _row(endpoints: Sequence[Endpoint], case: Case, runs: int, busy: int) -> CaseResult:
    seconds: dict[str, list[float]] = {one.name: [] for one in endpoints}
    texts: dict[str, list[str]] = {}
    for number in range(runs + 1):
        for one in endpoints if number % 2 else reversed(endpoints):
            began = time.perf_counter()
            texts[one.name] = await _run(one, case)
            if number:
                seconds[one.name].append(time.perf_counter() - began)
    return CaseResult(
        case, tuple(_result(seconds[one.name], texts[one.name]) for one in endpoints), busy
    )


def _result(seconds: Sequence[float], texts: Sequence[str]) -> EndpointResult:
    calls = [text for text in texts if text.startswith("{")]
    return EndpointResult(tuple(seconds), len(calls), "; ".join(texts))


async def _run(endpoint: Endpoint, case: Case) -> list[str]:
    """Return the arguments of the calls, and the last text."""
    if not case.crowd:
        return await _chain(endpoint, case)
    texts: list[str] = []

    async def one(requests: Sequence[Json]) -> None:
        for request in requests:
            texts.extend(_texts(await endpoint.chat(request)))

    requests = crowd_requests(case)
    async with anyio.create_task_group() as clients:
        for number in range(case.crowd):
            clients.start_soon(one, requests[number :: case.crowd])
    return texts


async def _chain(endpoint: Endpoint, case: Case) -> list[str]:
    request, texts = {**case.request, **(case.vllm if endpoint.is_vllm else {})}, list[str]()
    for result in case.results:
        message = await endpoint.chat(request)
        texts += _texts(message)
        request = next_request(request, message, result)
    if case.results:
        request = {**request, "tool_choice": "none", "max_tokens": ANSWER_TOKENS}
    return texts + _texts(await endpoint.chat(request))


def _texts(message: Json) -> list[str]:
    calls = message.get("tool_calls") or []
    return [call["function"]["arguments"] for call in calls] or [f"“{message['content']}”"]
