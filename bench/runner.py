"""Cases run on several servers in alternation, so that a noisy machine disturbs all of them."""

import statistics
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import anyio

from falsework.bench.cases import Case, Json, crowd_requests, next_request
from falsework.bench.endpoint import Endpoint

ANSWER_TOKENS = 48
"""How long the answer at the end of a chain may be."""


@dataclass(frozen=True)
class EndpointResult:
    """What one server made of one case."""

    seconds: tuple[float, ...]
    """One for each run."""
    calls: int
    """How many calls the last run got."""
    said: str

    @property
    def median(self) -> float:
        """The median, per call where there are calls: two models may differ in their number."""
        return statistics.median(self.seconds) / max(1, self.calls)


@dataclass(frozen=True)
class CaseResult:
    """A case and what each server made of it, in the servers' order."""

    case: Case
    results: tuple[EndpointResult, ...]


async def run_alternating(
    endpoints: Sequence[Endpoint], cases: Sequence[Case], runs: int
) -> AsyncIterator[CaseResult]:
    """Yield a row per case; the first run warms up and doesn't count."""
    for case in cases:
        seconds: dict[str, list[float]] = {one.name: [] for one in endpoints}
        said: dict[str, list[str]] = {}
        for number in range(runs + 1):
            for one in endpoints if number % 2 else reversed(endpoints):
                begun = time.perf_counter()
                said[one.name] = await _run(one, case)
                if number:
                    seconds[one.name].append(time.perf_counter() - begun)
        yield CaseResult(
            case, tuple(_result(seconds[one.name], said[one.name]) for one in endpoints)
        )


def _result(seconds: Sequence[float], said: Sequence[str]) -> EndpointResult:
    calls = [text for text in said if text.startswith("{")]
    return EndpointResult(tuple(seconds), len(calls), "; ".join(said))


async def _run(endpoint: Endpoint, case: Case) -> list[str]:
    """Return what was said: the arguments of calls, and the last text."""
    if not case.crowd:
        return await _chain(endpoint, case)
    said: list[str] = []

    async def one(requests: Sequence[Json]) -> None:
        for request in requests:
            said.extend(_said(await endpoint.chat(request)))

    requests = crowd_requests(case)
    async with anyio.create_task_group() as clients:
        for number in range(case.crowd):
            clients.start_soon(one, requests[number :: case.crowd])
    return said


async def _chain(endpoint: Endpoint, case: Case) -> list[str]:
    request, said = {**case.request, **(case.vllm if endpoint.is_vllm else {})}, list[str]()
    for result in case.results:
        message = await endpoint.chat(request)
        said += _said(message)
        request = next_request(request, message, result)
    if case.results:
        request = {**request, "tool_choice": "none", "max_tokens": ANSWER_TOKENS}
    return said + _said(await endpoint.chat(request))


def _said(message: Json) -> list[str]:
    calls = message.get("tool_calls") or []
    return [call["function"]["arguments"] for call in calls] or [f"“{message['content']}”"]
