"""The time of one turn of the model, divided into phases; its span and its metrics."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import StatusCode

from falsework.server.api.chat.objects import Usage
from falsework.server.api.chat.request import GenerationRequest
from falsework.server.engines.base import OutputDelta, RequestTimings
from falsework.server.generation.choice import ChoiceDelta
from falsework.server.observability import telemetry
from falsework.server.observability.request_metrics import RequestMetrics


@contextmanager
def time_turn(question: GenerationRequest, watch: RequestMetrics) -> Iterator["TurnTimer"]:
    """Time a turn, however it ends."""
    clock = TurnTimer(question, watch)
    try:
        yield clock
    except (asyncio.CancelledError, GeneratorExit):
        clock.error = "cancelled"
        raise
    except BaseException as fault:
        clock.error = type(fault).__name__
        raise
    finally:
        clock.finish()


class TurnTimer:
    """Divides the time of one turn into its phases."""

    def __init__(self, question: GenerationRequest, watch: RequestMetrics) -> None:
        self.error = ""
        self._model = question.model
        self._watch = watch
        self._began = time.monotonic()
        self._began_ns = time.time_ns()
        self._first = 0.0
        self._thought = 0.0
        self._known: RequestTimings | None = None
        self._usage: Usage | None = None
        self._ends: list[str] = []
        attributes = {
            telemetry.ATTR_OPERATION: "chat",
            telemetry.ATTR_PROVIDER: telemetry.PROVIDER_NAME,
            telemetry.REQUEST_MODEL: question.model,
            telemetry.REASONING: question.effort or "default",
        }
        # Not the current span: a generator's steps run in whatever context asks for them.
        self._span = telemetry.TRACER.start_span(
            telemetry.SPAN_CHAT.format(model=question.model),
            watch.parent_context(),
            attributes=attributes,
            start_time=self._began_ns,
        )
        watch.phase = "prefill"
        if watch.turns == 1:
            given = (question.effort, "client") if question.effort else ("default", "default")
            telemetry.REASONING_LEVEL.labels(*given).inc()

    def on_output(self, piece: OutputDelta, *, thinking: bool) -> None:
        """Notice a piece."""
        now = time.monotonic()
        if not self._first:
            self._first = now
            self._watch.on_first_token()
            self._span.add_event(telemetry.EVENT_FIRST_TOKEN)
        if thinking:
            self._thought = now
        self._watch.phase = "think" if thinking else "decode"
        self._known = piece.timings or self._known

    def on_delta(self, step: ChoiceDelta | Usage) -> None:
        """Notice what is told."""
        if isinstance(step, Usage):
            self._usage = step
        elif step.finish:
            self._ends.append(step.finish)

    def finish(self) -> None:
        """Tell everything."""
        now = time.monotonic()
        self._tell_phases(now)
        labels = ("chat", self._model)
        telemetry.CHAT_SECONDS.labels(*labels, self.error).observe(now - self._began)
        tokens = self._usage.completion if self._usage else 0
        if tokens > 1:
            each = (now - self._first) / (tokens - 1)
            telemetry.SERVER_PER_TOKEN.labels(*labels).observe(each)
        self._end_span()

    def _end_span(self) -> None:
        if self._first:
            self._span.set_attribute(telemetry.FIRST_CHUNK, self._first - self._began)
        if self._ends:
            self._span.set_attribute(telemetry.FINISH_REASONS, self._ends)
        if self._usage:
            self._span.set_attribute(telemetry.INPUT_TOKENS, self._usage.prompt)
            self._span.set_attribute(telemetry.CACHED_TOKENS, self._usage.cached)
            self._span.set_attribute(telemetry.OUTPUT_TOKENS, self._usage.completion)
            self._span.set_attribute(telemetry.THOUGHT_TOKENS, self._usage.reasoning)
        if self.error:
            self._span.set_attribute(telemetry.ERROR_TYPE, self.error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()

    def _tell_phases(self, now: float) -> None:
        first = self._first or now
        queue = min(self._known.queue, first - self._began) if self._known else 0.0
        phases = {
            "queue": queue,
            "prefill": first - self._began - queue,
            "think": max(0.0, self._thought - first),
            "decode": now - max(first, self._thought),
        }
        begins = self._began_ns
        within = trace.set_span_in_context(self._span)
        for phase, seconds in phases.items():
            self._watch.add_phase(phase, seconds)
            ends = begins + int(seconds * 1e9)
            if ends > begins:
                telemetry.TRACER.start_span(phase, within, start_time=begins).end(ends)
            begins = ends
