"""GET /console: the last requests as waterfalls, breakers, latencies; no other system needed."""

from importlib import resources
from typing import Any

from fastapi.responses import HTMLResponse
from prometheus_client import REGISTRY

from falsework.runtime.toolbox import Toolbox
from falsework.server.watching.traces import LastTraces

Json = dict[str, Any]

PAGE = resources.files("falsework.server.watching").joinpath("console.html").read_text("utf-8")


async def page() -> HTMLResponse:
    """Return the page; it holds no data, which it asks for with the key."""
    return HTMLResponse(PAGE)


def state(toolbox: Toolbox, traces: LastTraces) -> Json:
    """Return what the page shows."""
    return {
        "requests": traces.waterfalls(),
        "upstreams": [
            {
                "name": upstream.name,
                "state": upstream.breaker.state,
                "opens_in": round(upstream.breaker.opens_in(), 1),
                "budget": round(upstream.budget.tokens, 1),
            }
            for upstream in toolbox.upstreams.values()
        ],
        "servers": [{"name": s.name, "up": s.up, "restarts": s.restarts}
                    for s in toolbox.servers.values()],
        "latencies": _latencies("falsework_request_duration_seconds"),
    }  # fmt: skip


def _latencies(name: str) -> list[Json]:
    """Return how many requests took at most how long."""
    counts: dict[str, float] = {}
    for metric in REGISTRY.collect():
        if metric.name != name:
            continue
        for sample in metric.samples:
            if sample.name.endswith("_bucket"):
                bound = sample.labels["le"]
                counts[bound] = counts.get(bound, 0) + sample.value
    ordered = sorted(counts.items(), key=lambda pair: float(pair[0]))
    return [{"le": bound, "count": count} for bound, count in ordered]
