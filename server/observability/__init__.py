from falsework.server.observability import telemetry
from falsework.server.observability.logging import configure_logging
from falsework.server.observability.request_metrics import RequestMetrics, record_outcome
from falsework.server.observability.tracing import (
    RecentTraces,
    background_span,
    configure_tracing,
    request_span,
    tracer_provider,
)

__all__ = [
    "RecentTraces",
    "RequestMetrics",
    "background_span",
    "configure_logging",
    "configure_tracing",
    "record_outcome",
    "request_span",
    "telemetry",
    "tracer_provider",
]
