from falsework.server.observability import telemetry
from falsework.server.observability.logging import configure_logging
from falsework.server.observability.request_metrics import RequestMetrics, record_outcome
from falsework.server.observability.request_warnings import (
    collect_warnings,
    warn_client,
    warning_headers,
    warning_objects,
)
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
    "collect_warnings",
    "configure_logging",
    "configure_tracing",
    "record_outcome",
    "request_span",
    "telemetry",
    "tracer_provider",
    "warn_client",
    "warning_headers",
    "warning_objects",
]
