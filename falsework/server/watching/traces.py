"""The last requests as waterfalls, kept in memory for the console, and spans for OpenTelemetry."""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import cachetools
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

Json = dict[str, Any]

KEPT_TRACES = 100
OPEN_TRACES = 1000
MOST_SPANS = 500
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class LastTraces(SpanProcessor):
    """Keeps the spans of the last requests; a request is complete when its server span ends."""

    def __init__(self) -> None:
        self._open: cachetools.LRUCache[int, list[ReadableSpan]] = cachetools.LRUCache(OPEN_TRACES)
        self._kept: deque[Json] = deque(maxlen=KEPT_TRACES)

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span in."""
        context = span.get_span_context()
        if context is None:
            return
        spans = self._open.setdefault(context.trace_id, [])
        if len(spans) < MOST_SPANS:
            spans.append(span)
        if span.kind is SpanKind.SERVER:
            self._kept.append(_waterfall(span, self._open.pop(context.trace_id)))

    def waterfalls(self) -> list[Json]:
        """Return the requests, the newest first."""
        return list(reversed(self._kept))


def _waterfall(root: ReadableSpan, spans: Sequence[ReadableSpan]) -> Json:
    begun = root.start_time or 0
    context = root.get_span_context()
    ordered = sorted(spans, key=lambda span: (span.start_time or 0, -(span.end_time or 0)))
    return {
        "id": f"{context.trace_id:032x}" if context else "",
        "name": root.name,
        "began": begun / 1e9,
        "ms": _milliseconds(root),
        "spans": [
            {
                "name": span.name,
                "from_ms": ((span.start_time or 0) - begun) / 1e6,
                "ms": _milliseconds(span),
                "failed": not span.status.is_ok,
                "attributes": {key: str(value) for key, value in (span.attributes or {}).items()},
            }
            for span in ordered
        ],
    }


def _milliseconds(span: ReadableSpan) -> float:
    return ((span.end_time or 0) - (span.start_time or 0)) / 1e6


def tracer_provider() -> TracerProvider:
    """Return the process's provider, made where there is none yet."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(resource=Resource.create({"service.name": "falsework"}))
        trace.set_tracer_provider(provider)
    return provider


def watch_traces(environment: Mapping[str, str] = os.environ, *, keep: bool) -> LastTraces | None:
    """Set up tracing where somebody looks: the console, or a collector named by the environment."""
    exported = any(environment.get(name) for name in ENDPOINTS)
    if not (keep or exported):
        return None
    provider = tracer_provider()
    if exported:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    kept = LastTraces() if keep else None
    if kept:
        provider.add_span_processor(kept)
    return kept
