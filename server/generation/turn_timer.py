"""The time of one turn of the model, divided into phases; its span and its metrics."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import StatusCode

from falsework.server.engines import RequestTimings
from falsework.server.generation.choice import ChoiceDelta
from falsework.server.generation.request import GenerationRequest
from falsework.server.generation.usage import Usage
from falsework.server.observability import RequestMetrics, telemetry


@contextmanager
def time_turn(request: GenerationRequest, metrics: RequestMetrics) -> Iterator["TurnTimer"]:
    """Time a turn, however it ends."""
    timer = TurnTimer(request, metrics)
    try:
        yield timer
    except (asyncio.CancelledError, GeneratorExit):
        timer.error = "cancelled"
        raise
    except BaseException as error:
        timer.error = type(error).__name__
        raise
    finally:
        timer.finish()


class TurnTimer:
    """Divides the time of one turn into its phases."""

    def __init__(self, request: GenerationRequest, metrics: RequestMetrics) -> None:
        self.error = ""
        self._model = request.model
        self._metrics = metrics
        self._began = time.monotonic()
        self._began_ns = time.time_ns()
        self._first = 0.0
        self._thought = 0.0
        self._timings: RequestTimings | None = None
        self._usage: Usage | None = None
        self._finish_reasons: list[str] = []
        attributes = {
            telemetry.ATTR_OPERATION: "chat",
            telemetry.ATTR_PROVIDER: telemetry.PROVIDER_NAME,
            telemetry.REQUEST_MODEL: request.model,
            telemetry.REASONING: request.effort or "default",
        }
        # Not the current span: a generator's steps run in whatever context asks for them.
        self._span = telemetry.TRACER.start_span(
            telemetry.SPAN_CHAT.format(model=request.model),
            metrics.parent_context(),
            attributes=attributes,
            start_time=self._began_ns,
        )
        metrics.phase = "prefill"
        if metrics.turns == 1:
            level = (request.effort, "client") if request.effort else ("default", "default")
            telemetry.REASONING_LEVEL.labels(*level).inc()

    def on_delta(self, delta: ChoiceDelta, timings: RequestTimings | None) -> None:
        """Notice a piece of output and what it adds."""
        now = time.monotonic()
        if not self._first:
            self._first = now
            self._metrics.on_first_token()
            self._span.add_event(telemetry.EVENT_FIRST_TOKEN)
        if delta.thinking:
            self._thought = now
        self._metrics.phase = "think" if delta.thinking else "decode"
        self._timings = timings or self._timings
        if delta.finish:
            self._finish_reasons.append(delta.finish)
        if delta.ended_by:
            telemetry.REPLIES_ENDED.labels(delta.ended_by).inc()
            self._span.set_attribute(telemetry.ENDED_BY, delta.ended_by)

    def on_usage(self, usage: Usage) -> None:
        """Notice the tokens of the turn, which is complete."""
        self._usage = usage

    def finish(self) -> None:
        """Record phases, metrics and the span."""
        now = time.monotonic()
        self._record_phases(now)
        labels = ("chat", self._model)
        telemetry.CHAT_SECONDS.labels(*labels, self.error).observe(now - self._began)
        tokens = self._usage.completion if self._usage else 0
        if tokens > 1:
            per_token = (now - self._first) / (tokens - 1)
            telemetry.SERVER_PER_TOKEN.labels(*labels).observe(per_token)
        self._end_span()

    def _end_span(self) -> None:
        if self._first:
            self._span.set_attribute(telemetry.FIRST_CHUNK, self._first - self._began)
        if self._finish_reasons:
            self._span.set_attribute(telemetry.FINISH_REASONS, self._finish_reasons)
        if self._usage:
            self._span.set_attribute(telemetry.INPUT_TOKENS, self._usage.prompt)
            self._span.set_attribute(telemetry.CACHED_TOKENS, self._usage.cached)
            self._span.set_attribute(telemetry.OUTPUT_TOKENS, self._usage.completion)
            self._span.set_attribute(telemetry.THOUGHT_TOKENS, self._usage.reasoning)
        if self.error:
            self._span.set_attribute(telemetry.ERROR_TYPE, self.error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()

    def _record_phases(self, now: float) -> None:
        first = self._first or now
        queue = min(self._timings.queue, first - self._began) if self._timings else 0.0
        phases = {
            "queue": queue,
            "prefill": first - self._began - queue,
            "think": max(0.0, self._thought - first),
            "decode": now - max(first, self._thought),
        }
        begins = self._began_ns
        context = trace.set_span_in_context(self._span)
        for phase, seconds in phases.items():
            self._metrics.add_phase(phase, seconds)
            ends = begins + int(seconds * 1e9)
            if ends > begins:
                telemetry.TRACER.start_span(phase, context, start_time=begins).end(ends)
            begins = ends
