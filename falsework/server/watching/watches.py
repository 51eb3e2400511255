"""What is seen of one request from outside: its phases, its metrics, its line in the log."""

import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from falsework.runtime import telemetry
from falsework.runtime.runs import Run
from falsework.server.refusals import BadRequest

log = structlog.get_logger("falsework.requests")


@dataclass
class Watch:
    """Measures one request; phases are seconds and sum to the whole, the rest being `other`."""

    model: str
    api: str
    stream: bool
    began: float = field(default_factory=time.monotonic)
    phases: Counter[str] = field(default_factory=Counter)
    first_token: float = 0.0
    turns: int = 0
    run: Run | None = None
    over: bool = False

    def spent(self, phase: str, seconds: float) -> None:
        """Add to a phase."""
        self.phases[phase] += max(0.0, seconds)  # type: ignore[assignment]  # seconds, not counts

    def heard(self) -> None:
        """Notice the first token."""
        if not self.first_token:
            self.first_token = time.monotonic() - self.began
            telemetry.FIRST_TOKEN_SECONDS.labels(self.model, self.api).observe(self.first_token)

    def end(self, outcome: str) -> None:
        """Tell everything, once."""
        if self.over:
            return
        self.over = True
        seconds = time.monotonic() - self.began
        self.phases["other"] = max(0.0, seconds - sum(self.phases.values()))  # type: ignore[assignment]
        stream = str(self.stream).lower()
        telemetry.REQUEST_SECONDS.labels(self.model, self.api, stream, outcome).observe(seconds)
        for phase in telemetry.PHASES:
            telemetry.PHASE_SECONDS.labels(phase).observe(self.phases[phase])
        telemetry.MODEL_TURNS.observe(self.turns)
        if outcome == "left":
            telemetry.DISCONNECTS.labels("stream" if self.stream else "whole").inc()
        told: dict[str, object] = {
            phase: round(1000 * self.phases[phase], 1) for phase in telemetry.PHASES
        }
        if self.run:
            telemetry.TOOL_CALLS_OF_REQUEST.observe(len(self.run.executed))
            telemetry.DEADLINE_REMAINING.observe(max(0.0, self.run.deadline.left()))
            told["run_id"] = self.run.id
        log.info(
            "request", api=self.api, outcome=outcome, turns=self.turns, ms=round(1000 * seconds, 1),
            **told,
        )  # fmt: skip


Told = TypeVar("Told")


async def watched(told: AsyncGenerator[Told], watch: Watch) -> AsyncGenerator[Told]:
    """Pass on what is told; at the end, whichever that is, the watch is told of it."""
    outcome = "left"
    try:
        async with aclosing(told):
            async for each in told:
                yield each
        outcome = "ok"
    except BadRequest:
        outcome = "refused"
        raise
    except Exception:
        outcome = "error"
        raise
    finally:
        watch.end(outcome)
