"""What is counted and logged of a call, however it ended; its span."""

import time
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
    """What metrics call a tool; of a tool that isn't the tools file's they tell nothing."""

    tool: str = telemetry.OTHER
    kind: str = telemetry.OTHER
    effect: str = "none"


UNKNOWN_TOOL = MetricLabels()


@dataclass
class ResultHolder:
    """How a call ends, once it has."""

    outcome: ToolResult


@contextmanager
def observe_call(plain: ToolResult, labels: MetricLabels) -> Iterator[ResultHolder]:
    """Hold the span of a call; at its end count and log it."""
    attributes = {
        telemetry.ATTR_OPERATION: "execute_tool",
        telemetry.TOOL_NAME: plain.tool,
        telemetry.TOOL_TYPE: telemetry.TOOL_TYPE_EXTENSION,
        telemetry.CALL_ID: plain.call_id,
    }
    fault = ToolCallError("internal", "The call failed for no reason that was foreseen.")
    ending, begun = ResultHolder(replace(plain, fault=fault)), time.monotonic()
    name = telemetry.SPAN_EXECUTE_TOOL.format(name=plain.tool)
    with telemetry.TRACER.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield ending
        except anyio.get_cancelled_exc_class():
            ending.outcome = replace(
                plain, fault=ToolCallError("cancelled", "The call was given up.")
            )
            raise
        finally:
            ending.outcome = replace(ending.outcome, seconds=time.monotonic() - begun)
            _end(ending.outcome, labels, span)


def _end(outcome: ToolResult, labels: MetricLabels, span: Span) -> None:
    count_call(outcome, labels)
    error = outcome.fault.kind if outcome.fault else ""
    telemetry.EXECUTE_SECONDS.labels(labels.tool, labels.kind, error).observe(outcome.seconds)
    if error:
        span.set_attribute(telemetry.ERROR_TYPE, error)
        span.set_status(StatusCode.ERROR)
    if error == "cancelled":
        span.add_event(telemetry.CANCEL)
        telemetry.CANCELLED_CALLS.labels(labels.tool).inc()


def count_call(outcome: ToolResult, labels: MetricLabels = UNKNOWN_TOOL) -> None:
    """Count a call, made or refused, and log it without its arguments."""
    error = outcome.fault.kind if outcome.fault else ""
    how = "error" if error else "degraded" if outcome.degraded else "ok"
    telemetry.TOOL_CALLS.labels(*labels, how, error).inc()
    log.info(
        telemetry.LOG_TOOL_CALL, call_id=outcome.call_id, tool=outcome.tool, outcome=how,
        error_type=error, attempts=outcome.attempts, ms=round(1000 * outcome.seconds, 1),
    )  # fmt: skip
