"""What a request got otherwise than it asked for: told in its reply, counted and traced.

The middleware begins a list for each request; whatever is left out or changed on the way adds to
it, and the reply's header `warning` and its field `warnings` repeat it.
"""

import json
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace

from falsework.server.observability import telemetry
from falsework.server.types import Json

MAX_HEADER_WARNINGS = 8
MAX_HEADER_CHARACTERS = 300


@dataclass(frozen=True)
class RequestWarning:
    """One thing that was done otherwise; `param` is the field that asked for it."""

    code: str
    message: str
    param: str | None = None


_warnings: ContextVar[list[RequestWarning] | None] = ContextVar("warnings", default=None)


def collect_warnings() -> Sequence[RequestWarning]:
    """Begin the list of a request and return it; tasks that the request starts share it."""
    collected: list[RequestWarning] = []
    _warnings.set(collected)
    return collected


def warn_client(code: str, message: str, param: str | None = None) -> None:
    """Add a warning to the current request's, once for a code and a field."""
    collected = _warnings.get()
    if collected is not None:
        if any((one.code, one.param) == (code, param) for one in collected):
            return
        collected.append(RequestWarning(code, message, param))
    telemetry.REQUEST_WARNINGS.labels(code).inc()
    attributes = {"code": code, "message": message, "param": param or ""}
    trace.get_current_span().add_event(telemetry.EVENT_WARNING, attributes)


def warning_objects() -> list[Json]:
    """Return the current request's warnings as replies show them."""
    return [
        {"code": one.code, "message": one.message, "param": one.param}
        for one in _warnings.get() or ()
    ]


def warning_headers(warnings: Sequence[RequestWarning]) -> Iterator[str]:
    """Yield the values of `warning` headers: 299, a name and a quoted text (RFC 7234, 5.5)."""
    for one in warnings[:MAX_HEADER_WARNINGS]:
        text = json.dumps(f"{one.code}: {one.message[:MAX_HEADER_CHARACTERS]}")
        yield f"299 falsework {text}"
    if left := len(warnings[MAX_HEADER_WARNINGS:]):
        yield f'299 falsework "and {left} more"'
