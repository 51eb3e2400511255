"""The attempts of one call: retries with backoff, hedges, timeouts.

Rules: a write whose attempt may have arrived is never repeated, unless the upstream honours an
idempotency key or said that it did nothing. No retry without budget, and none that the deadline
would cut.
"""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiolimiter
import anyio
from opentelemetry import propagate, trace
from opentelemetry.trace import StatusCode

from falsework.server.observability import telemetry
from falsework.server.python_worker import UNHANDLED_EXCEPTION
from falsework.server.tools.config import WRITE_EFFECTS, ToolPolicy
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import (
    PAUSE_REASONS,
    TRIPS_BREAKER,
    ToolCallError,
    is_ambiguous,
)
from falsework.server.tools.executors import AttemptContext, Executor
from falsework.server.tools.resilience import Pause, Permit, Upstream
from falsework.server.types import Json

MIN_ATTEMPT_SECONDS = 0.05
"""With less time left no attempt is started."""

DEADLINE_REASON = "deadline"
"""The reason of a timeout that the request's deadline shortened: no failure of the upstream."""

LATENCY_WINDOW = 100
"""Attempts whose latencies the quantiles of hedges are taken from."""

MIN_LATENCY_SAMPLES = 20


@dataclass
class CallState:
    """The attempts and waits of one call so far; times in seconds."""

    deadline: Deadline
    call_id: str
    key: str | None = None
    attempts: int = 0
    backoff: float = 0.0
    queued: float = 0.0
    shortened: bool = False
    """Whether the request leaves the tool less time than its own deadline."""
    ambiguous: set[str] = field(default_factory=set)
    """The reasons of failed attempts that may have been applied all the same."""


class Retrier:
    """Makes the attempts of one tool's calls."""

    def __init__(
        self,
        tool: str,
        policy: ToolPolicy,
        executor: Executor,
        upstream: Upstream,
        random_number: Callable[[], float] = random.random,
    ) -> None:
        self._tool = tool
        self._policy = policy
        self._executor = executor
        self._upstream = upstream
        self._random = random_number
        rate = policy.rate_limit
        self._limiter = aiolimiter.AsyncLimiter(rate.calls, rate.per) if rate else None
        self._retry_on = {str(reason) for reason in policy.retry.retry_on}
        self._not_applied_on = {str(status) for status in policy.retry.not_applied_on}
        self._writes = policy.effect in WRITE_EFFECTS
        self._pause = Pause(upstream.clock)
        self._latencies: deque[float] = deque(maxlen=LATENCY_WINDOW)

    async def run(self, arguments: Json, state: CallState) -> Any:
        """Return the value of the first attempt that succeeds; raise the last ToolCallError."""
        self._upstream.budget.deposit()
        while True:
            try:
                return await self._attempt_with_hedge(arguments, state)
            except ToolCallError as error:
                delay = self._retry_delay(error, state)
                if delay is None:
                    raise
                telemetry.RETRIES.labels(self._tool, error.reason).inc()
                trace.get_current_span().add_event(telemetry.RETRY, {"reason": error.reason})
                state.backoff += delay
                with telemetry.TRACER.start_as_current_span(telemetry.SPAN_BACKOFF):
                    await anyio.sleep(delay)

    def _retry_delay(self, error: ToolCallError, state: CallState) -> float | None:
        """Return how long to wait before the next attempt; None where there is none."""
        retry = self._policy.retry
        if state.attempts >= retry.max_attempts or error.reason not in self._retry_on:
            return None
        repeatable = not self._writes or state.key is not None
        if error.sent and not repeatable:
            return None
        requested = error.retry_after or 0.0
        spread = min(retry.cap, retry.base * 2 ** (state.attempts - 1))
        delay: float = requested + self._random() * spread  # full jitter
        if (
            requested > retry.retry_after_cap
            or delay + MIN_ATTEMPT_SECONDS > state.deadline.remaining()
        ):
            return None
        if not self._upstream.budget.withdraw():
            telemetry.RETRIES_DENIED.labels(self._upstream.name).inc()
            return None
        return delay

    async def _attempt_with_hedge(self, arguments: Json, state: CallState) -> Any:
        """Make an attempt, and a second one beside it where the first takes longer than usual."""
        delay = self._hedge_delay()
        if delay is None:
            return await self._attempt(arguments, state)
        results: list[tuple[int, Any, ToolCallError | None]] = []
        enough = anyio.Event()
        running = 1

        async def run_copy(number: int) -> None:
            try:
                results.append((number, await self._attempt(arguments, state), None))
            except ToolCallError as error:
                results.append((number, None, error))
            if len(results) == running or results[-1][2] is None:
                enough.set()

        async with anyio.create_task_group() as copies:
            copies.start_soon(run_copy, 0)
            with anyio.move_on_after(delay):
                await enough.wait()
            if not enough.is_set() and self._upstream.budget.withdraw():
                running = 2
                trace.get_current_span().add_event(telemetry.HEDGE)
                copies.start_soon(run_copy, 1)
            await enough.wait()
            copies.cancel_scope.cancel()
        number, value, error = next((result for result in results if result[2] is None), results[0])
        if running > 1:
            telemetry.HEDGES.labels(self._tool, str(number == 1).lower()).inc()
        if error:
            raise error
        return value

    def _hedge_delay(self) -> float | None:
        hedge = self._policy.hedge
        if hedge is None or self._writes:
            return None
        typical = self._quantile(0.95) if hedge.after == "p95" else hedge.after
        return max(hedge.floor, typical or 0.0)

    def _quantile(self, quantile: float) -> float | None:
        if len(self._latencies) < MIN_LATENCY_SAMPLES:
            return None
        return sorted(self._latencies)[int(quantile * len(self._latencies))]

    async def _attempt(self, arguments: Json, state: CallState) -> Any:
        """Make one attempt, and record its outcome at the circuit breaker."""
        permit, breaker = await self._acquire_permit(state), self._upstream.breaker
        began = self._upstream.clock()
        state.attempts += 1
        try:
            value = await self._attempt_in_span(arguments, state)
        except ToolCallError as error:
            counts_against = error.kind in TRIPS_BREAKER and error.reason != DEADLINE_REASON
            (breaker.record_failure if counts_against else breaker.release)(permit)
            if error.reason in PAUSE_REASONS:
                self._start_pause(error.retry_after or 0.0)
            raise
        except BaseException:  # a cancellation says nothing about the upstream
            breaker.release(permit)
            raise
        seconds = self._upstream.clock() - began
        self._latencies.append(seconds)
        breaker.record_success(permit, seconds)
        return value

    def _start_pause(self, seconds: float) -> None:
        """Keep further attempts away as a Retry-After asks: the tool's, or the upstream's."""
        retry = self._policy.retry
        pause = self._upstream.pause if retry.pause_scope == "upstream" else self._pause
        pause.start(min(seconds, retry.pause_cap))

    async def _acquire_permit(self, state: CallState) -> Permit:
        """Return a permit once pause, rate limit and breaker allow an attempt; or raise.

        A call that the breaker would refuse doesn't wait for the others.
        """
        breaker = self._upstream.breaker
        if breaker.would_allow:
            for pause in (self._pause, self._upstream.pause):
                await pause.wait(self._policy.retry.retry_after_cap, state.deadline)
            await self._pass_limit(state.deadline)
            remaining = state.deadline.remaining()
            if remaining < max(MIN_ATTEMPT_SECONDS, self._quantile(0.5) or 0.0):
                raise ToolCallError("deadline_exhausted", "There is no time left for this call.")
        permit = breaker.try_acquire()
        if permit is None:
            self._record_rejection(state)
            message = "The upstream keeps failing, so it is left alone for a while."
            raise ToolCallError(
                "circuit_open", message, retry_after=breaker.seconds_until_half_open()
            )
        return permit

    async def _pass_limit(self, deadline: Deadline) -> None:
        if self._limiter is None:
            return
        with anyio.move_on_after(max(0.0, deadline.remaining())):
            await self._limiter.acquire()
            return
        raise ToolCallError("rate_limited", "The tool's rate limit is reached.", retry_after=1.0)

    def _record_rejection(self, state: CallState) -> None:
        """Count and trace that the breaker refused an attempt."""
        telemetry.BREAKER_REJECTIONS.labels(self._upstream.name).inc()
        trace.get_current_span().add_event(telemetry.BREAKER_OPEN)
        span = telemetry.TRACER.start_span(
            telemetry.SPAN_ATTEMPT.format(number=state.attempts + 1),
            attributes={telemetry.ERROR_TYPE: "circuit_open", telemetry.ATTR_BREAKER_STATE: "open"},
        )
        span.set_status(StatusCode.ERROR)
        span.end()

    async def _attempt_in_span(self, arguments: Json, state: CallState) -> Any:
        number = state.attempts
        attributes = {
            telemetry.ATTEMPT_NUMBER: number,
            telemetry.ATTR_BREAKER_STATE: self._upstream.breaker.state,
            telemetry.DEADLINE_LEFT: int(state.deadline.remaining() * 1000),
            telemetry.ATTR_BACKOFF_MS: int(state.backoff * 1000),
        }
        name = telemetry.SPAN_ATTEMPT.format(number=number)
        began, outcome = time.monotonic(), "internal"
        with telemetry.TRACER.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                value = await self._attempt_with_timeout(arguments, state)
                outcome = "ok"
            except ToolCallError as error:
                outcome = error.kind
                span.set_attribute(telemetry.ERROR_TYPE, error.kind)
                span.set_status(StatusCode.ERROR)
                raise
            except anyio.get_cancelled_exc_class():
                outcome = "cancelled"
                raise
            finally:
                seconds = time.monotonic() - began
                telemetry.ATTEMPTS.labels(self._tool, outcome).inc()
                telemetry.ATTEMPT_SECONDS.labels(self._tool, outcome).observe(seconds)
        return value

    async def _attempt_with_timeout(self, arguments: Json, state: CallState) -> Any:
        attempt_timeout = self._policy.attempt_timeout
        timeout = max(0.0, min(attempt_timeout, state.deadline.remaining()))
        deadline_reason = DEADLINE_REASON if state.shortened and timeout < attempt_timeout else ""
        headers: dict[str, str] = {}
        propagate.inject(headers)  # trace context: the upstream's spans belong to this attempt
        deadline = Deadline.after(timeout)
        attempt = AttemptContext(deadline, state.call_id, state.key, headers=headers)
        try:
            return await self._execute_in_time(arguments, attempt, timeout, deadline_reason)
        except ToolCallError as error:
            if error.reason == "timeout":
                error.reason = deadline_reason or error.reason
            if error.reason in self._not_applied_on:
                error.sent = False
            elif attempt.sent and is_ambiguous(error):
                state.ambiguous.add(error.reason)
            raise
        except Exception:
            state.ambiguous |= {UNHANDLED_EXCEPTION} if attempt.sent else set()
            raise

    async def _execute_in_time(
        self, arguments: Json, attempt: AttemptContext, seconds: float, deadline_reason: str
    ) -> Any:
        with anyio.move_on_after(seconds):
            return await self._executor.execute(arguments, attempt)
        if not attempt.sent:
            message = "The upstream couldn't be reached in time."
            raise ToolCallError("unavailable", message, deadline_reason or "connect")
        message = f"The tool didn't answer within {seconds:.3g} s."
        raise ToolCallError("timeout", message, deadline_reason or "timeout", sent=True)
