"""GET /console: the last requests as waterfalls, breakers, latencies; no other system needed."""

import base64
import hashlib
from importlib import resources

from fastapi.responses import HTMLResponse

from falsework.server.observability import RecentTraces, telemetry
from falsework.server.tools import ToolRegistry
from falsework.server.types import Json

CONSOLE_HTML = resources.files("falsework.server.api").joinpath("console.html").read_text("utf-8")


def _hash(element: str) -> str:
    """Return what lets the page's own script or style in, and no other."""
    inside = CONSOLE_HTML.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
    digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    return f"'sha256-{digest}'"


SECURITY_HEADERS = {
    "content-security-policy": f"default-src 'none'; script-src {_hash('script')}; "
    f"style-src {_hash('style')}; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


async def console_page() -> HTMLResponse:
    """Return the page; it holds no data, which it asks for with the key."""
    return HTMLResponse(CONSOLE_HTML, headers=SECURITY_HEADERS)


def console_state(toolbox: ToolRegistry, traces: RecentTraces) -> Json:
    """Return what the page shows."""
    return {
        "requests": traces.waterfalls(),
        "upstreams": [
            {
                "name": upstream.name,
                "state": upstream.breaker.state,
                "seconds_until_half_open": round(upstream.breaker.seconds_until_half_open(), 1),
                "budget": round(upstream.budget.tokens, 1),
            }
            for upstream in toolbox.upstreams.values()
        ],
        "servers": [
            {"name": s.name, "up": s.connected, "restarts": s.restarts}
            for s in toolbox.servers.values()
        ],
        "latencies": _latencies(),
    }


def _latencies() -> list[Json]:
    """Return how many requests took at most how long."""
    counts: dict[str, float] = {}
    for metric in telemetry.REQUEST_SECONDS.collect():
        for sample in metric.samples:
            if sample.name.endswith("_bucket"):
                bound = sample.labels["le"]
                counts[bound] = counts.get(bound, 0) + sample.value
    ordered = sorted(counts.items(), key=lambda pair: float(pair[0]))
    return [{"le": bound, "count": count} for bound, count in ordered]
