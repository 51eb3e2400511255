"""Metrics, log line and span of a tool call."""

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import anyio
import structlog
from opentelemetry.trace import Span, StatusCode

from falsework.server.observability import telemetry
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult

log = structlog.get_logger("falsework.tools")


class MetricLabels(NamedTuple):
    """Label values of a tool; tools that a request brought share the label `other`."""

    tool: str = telemetry.OTHER
    kind: str = telemetry.OTHER
    effect: str = "none"


UNKNOWN_TOOL = MetricLabels()

MAX_FRAMES = 6
"""Stack frames of an unexpected exception that are logged."""


@dataclass
class ResultHolder:
    """Takes the result of a call, for its span and metrics."""

    result: ToolResult


@contextmanager
def observe_call(empty: ToolResult, labels: MetricLabels) -> Iterator[ResultHolder]:
    """Hold the span of a call; at its end count and log the result that the holder has."""
    attributes = {
        telemetry.ATTR_OPERATION: "execute_tool",
        telemetry.TOOL_NAME: empty.tool,
        telemetry.TOOL_TYPE: telemetry.TOOL_TYPE_EXTENSION,
        telemetry.CALL_ID: empty.call_id,
    }
    error = ToolCallError("internal", "The call failed inside the server.")
    holder, began = ResultHolder(replace(empty, error=error)), time.monotonic()
    name = telemetry.SPAN_EXECUTE_TOOL.format(name=empty.tool)
    with telemetry.TRACER.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield holder
        except anyio.get_cancelled_exc_class():
            holder.result = replace(
                empty, error=ToolCallError("cancelled", "The call was given up.")
            )
            raise
        finally:
            holder.result = replace(holder.result, seconds=time.monotonic() - began)
            _record_end(holder.result, labels, span)


def _record_end(result: ToolResult, labels: MetricLabels, span: Span) -> None:
    count_call(result, labels)
    error_type = result.error.kind if result.error else ""
    telemetry.EXECUTE_SECONDS.labels(labels.tool, labels.kind, error_type).observe(result.seconds)
    if error_type:
        span.set_attribute(telemetry.ERROR_TYPE, error_type)
        span.set_status(StatusCode.ERROR)
    if error_type == "cancelled":
        span.add_event(telemetry.CANCEL)
        telemetry.CANCELLED_CALLS.labels(labels.tool).inc()


def count_call(result: ToolResult, labels: MetricLabels = UNKNOWN_TOOL) -> None:
    """Count a call, made or refused, and log it without its arguments."""
    error_type = result.error.kind if result.error else ""
    outcome = "error" if error_type else "degraded" if result.degraded else "ok"
    telemetry.TOOL_CALLS.labels(*labels, outcome, error_type).inc()
    log.info(
        telemetry.LOG_TOOL_CALL,
        call_id=result.call_id,
        tool=result.tool,
        outcome=outcome,
        error_type=error_type,
        attempts=result.attempts,
        ms=round(1000 * result.seconds, 1),
    )


def log_unexpected_error(event: str, error: BaseException, **fields: str) -> None:
    """Log where an unexpected exception came from, without its text, which may hold arguments."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    log.error(event, error=type(error).__name__, where=where, **fields)
