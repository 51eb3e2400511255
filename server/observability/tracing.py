"""The last requests as waterfalls, kept in memory for the console, and spans for OpenTelemetry."""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import cachetools
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from falsework.server.observability import telemetry

Json = dict[str, Any]

MAX_TRACES = 100
MAX_OPEN_TRACES = 1000
MAX_SPANS = 500
OTLP_ENV_VARS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

ROOT_SPAN_KINDS = frozenset({SpanKind.SERVER, SpanKind.CONSUMER})
"""Span kinds of whole requests: while a client waits, or in the background."""


def request_span(path: str, headers: Mapping[str, str]) -> AbstractContextManager[trace.Span]:
    """Return the span of a request as a context manager, within the client's own trace."""
    return telemetry.TRACER.start_as_current_span(
        telemetry.SPAN_SERVER.format(path=path),
        propagate.extract(headers),
        SpanKind.SERVER,
        record_exception=False,
        set_status_on_exception=False,
    )


def background_span() -> AbstractContextManager[trace.Span]:
    """Return the span of a background response, linked to the request that began it."""
    request = trace.get_current_span().get_span_context()
    return telemetry.TRACER.start_as_current_span(
        telemetry.SPAN_BACKGROUND,
        Context(),
        SpanKind.CONSUMER,
        links=[Link(request)],
        record_exception=False,
        set_status_on_exception=False,
    )


@dataclass
class _Request:
    """A root span, and the spans below it that have ended so far."""

    root: ReadableSpan
    spans: list[ReadableSpan] = field(default_factory=list)


class RecentTraces(SpanProcessor):
    """Keeps the spans of the last requests, by root span: clients may share one trace."""

    def __init__(self) -> None:
        self._open: cachetools.LRUCache[int, _Request] = cachetools.LRUCache(MAX_OPEN_TRACES)
        self._recent: deque[_Request] = deque(maxlen=MAX_TRACES)
        # Weak: the spans of a request go when it is neither open nor among the recent ones.
        self._request_of: WeakValueDictionary[int, _Request] = WeakValueDictionary()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note which request a span belongs to."""
        del parent_context
        own, parent = _id(span), span.parent
        if parent and not parent.is_remote:
            request = self._request_of.get(parent.span_id)
            if request:
                self._request_of[own] = request
        elif span.kind in ROOT_SPAN_KINDS:
            self._request_of[own] = self._open[own] = _Request(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Store a span; with its root a request is complete, but for writes that go on."""
        request = self._request_of.get(_id(span))
        if request is None:
            return
        if _id(span) == _id(request.root):
            request.root = span
            self._open.pop(_id(span), None)
            self._recent.append(request)
        elif len(request.spans) < MAX_SPANS:
            request.spans.append(span)

    def waterfalls(self) -> list[Json]:
        """Return the requests, the newest first."""
        return [_waterfall(request.root, request.spans) for request in reversed(self._recent)]


def _id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    return context.span_id if context else 0


def _waterfall(root: ReadableSpan, spans: Sequence[ReadableSpan]) -> Json:
    begun = root.start_time or 0
    context = root.get_span_context()
    ordered = sorted(spans, key=lambda span: (span.start_time or 0, -(span.end_time or 0)))
    return {
        "id": f"{context.span_id:016x}" if context else "",
        "trace": f"{context.trace_id:032x}" if context else "",
        "name": root.name,
        "began": begun / 1e9,
        "ms": _milliseconds(root),
        "spans": [_lane(span, begun) for span in (root, *ordered)],
    }


def _lane(span: ReadableSpan, begun: int) -> Json:
    return {
        "name": span.name,
        "from_ms": ((span.start_time or 0) - begun) / 1e6,
        "ms": _milliseconds(span),
        "failed": not span.status.is_ok,
        "attributes": {key: str(value) for key, value in (span.attributes or {}).items()},
        "events": [
            {"name": event.name, "at_ms": (event.timestamp - begun) / 1e6} for event in span.events
        ],
    }


def _milliseconds(span: ReadableSpan) -> float:
    return ((span.end_time or 0) - (span.start_time or 0)) / 1e6


class RecordAlwaysSampler(Sampler):
    """Records spans that another sampler drops (a client may ask for that), without exporting."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(  # noqa: PLR0913 - the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Return the inner sampler's decision, with RECORD_ONLY for DROP."""
        result = self._inner.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )
        if result.decision is Decision.DROP:
            return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)
        return result

    def get_description(self) -> str:
        """Return the sampler's name."""
        return f"Recorded{{{self._inner.get_description()}}}"


def tracer_provider() -> TracerProvider:
    """Return the process's provider, made where there is none yet."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(resource=Resource.create({"service.name": "falsework"}))
        provider.sampler = RecordAlwaysSampler(provider.sampler)
        trace.set_tracer_provider(provider)
    return provider


def configure_tracing(
    environment: Mapping[str, str] = os.environ, *, keep: bool
) -> RecentTraces | None:
    """Set up tracing for the console (`keep`), for a collector named by the environment, or not."""
    exported = any(environment.get(name) for name in OTLP_ENV_VARS)
    if not (keep or exported):
        return None
    provider = tracer_provider()
    if exported:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    recent = RecentTraces() if keep else None
    if recent:
        provider.add_span_processor(recent)
    return recent
