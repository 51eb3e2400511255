"""The phases, metrics and log line of one request."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, set_span_in_context

from falsework.server.errors import BadRequestError, ClientDisconnected
from falsework.server.observability import telemetry

log = structlog.get_logger("falsework.requests")


@dataclass
class RequestMetrics:
    """Measures one request; phases are seconds and sum to the whole, the rest being `other`."""

    model: str
    api: str
    stream: bool
    began: float = field(default_factory=time.monotonic)
    phases: Counter[str] = field(default_factory=Counter)
    first_token: float = 0.0
    turns: int = 0
    run_id: str = ""
    """Id of the tool run; empty where the server runs no tools."""
    tool_calls: int = 0
    deadline_left: float = 0.0
    """Seconds, once the tool run has ended."""
    over: bool = False
    background: bool = False
    phase: str = "other"
    """The current phase."""
    workflow: Span = INVALID_SPAN

    def parent_context(self) -> Context | None:
        """Return the context of child spans: the workflow's, or None for the current one."""
        return None if self.workflow is INVALID_SPAN else set_span_in_context(self.workflow)

    def add_phase(self, phase: str, seconds: float) -> None:
        """Add seconds to a phase."""
        self.phases[phase] += max(0.0, seconds)  # type: ignore[assignment]  # seconds, not counts

    def on_first_token(self) -> None:
        """Record the time of the first token; later calls change nothing."""
        self.first_token = self.first_token or time.monotonic() - self.began

    def finish(self, outcome: str) -> None:
        """Write metrics and log line; later calls change nothing."""
        if self.over:
            return
        self.over = True
        seconds = time.monotonic() - self.began
        self.phases["other"] = max(0.0, seconds - sum(self.phases.values()))  # type: ignore[assignment]
        if outcome == "left" and self.background:
            outcome = "cancelled"
        self._count(outcome, seconds)
        self._log(outcome, seconds)

    def _count(self, outcome: str, seconds: float) -> None:
        labels = (self.model, self.api, str(self.stream).lower(), outcome)
        telemetry.REQUEST_SECONDS.labels(*labels).observe(seconds)
        error = "" if outcome == "ok" else outcome
        telemetry.SERVER_SECONDS.labels("chat", self.model, error).observe(seconds)
        if self.first_token:
            telemetry.FIRST_TOKEN_SECONDS.labels(*labels).observe(self.first_token)
            telemetry.SERVER_FIRST_TOKEN.labels("chat", self.model).observe(self.first_token)
        for phase in telemetry.PHASES:
            telemetry.PHASE_SECONDS.labels(phase).observe(self.phases[phase])
        telemetry.MODEL_TURNS.labels(self.model).observe(self.turns)
        if outcome == "left":
            telemetry.DISCONNECTS.labels(self.phase).inc()
        if self.run_id:
            telemetry.TOOL_CALLS_OF_REQUEST.labels(self.model).observe(self.tool_calls)
            telemetry.DEADLINE_REMAINING.observe(max(0.0, self.deadline_left))

    def _log(self, outcome: str, seconds: float) -> None:
        phases = {phase: round(1000 * self.phases[phase], 1) for phase in telemetry.PHASES}
        run = {"run_id": self.run_id} if self.run_id else {}
        log.info(
            telemetry.LOG_REQUEST,
            api=self.api,
            outcome=outcome,
            turns=self.turns,
            ms=round(1000 * seconds, 1),
            **phases,
            **run,
        )


@contextmanager
def record_outcome(metrics: RequestMetrics) -> Iterator[None]:
    """Record how the request within this context ends: ok, refused, error, or client left."""
    outcome = "left"
    try:
        yield
        outcome = "ok"
    except BadRequestError:
        outcome = "refused"
        raise
    except ClientDisconnected:
        raise
    except Exception:
        outcome = "error"
        raise
    finally:
        metrics.finish(outcome)
