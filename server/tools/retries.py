"""All attempts of one call: when to try again, when to send a second copy, when to stop.

Rules: a write whose attempt may have arrived is never repeated, unless the upstream honours a key
or said itself that it did nothing. No retry without budget, and none that the deadline cuts.
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
from falsework.server.tools.config.policies import WRITE_EFFECTS, ToolPolicy
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import (
    REJECTED_STATUSES,
    TRIPS_BREAKER,
    UNHANDLED_EXCEPTION,
    ToolCallError,
    is_ambiguous,
)
from falsework.server.tools.executors.base import AttemptContext, Executor, Json
from falsework.server.tools.resilience.circuit_breaker import Permit
from falsework.server.tools.resilience.upstream import Upstream

MIN_ATTEMPT_SECONDS = 0.05
"""With less time left no attempt is started."""

DEADLINE_REASON = "deadline"
"""The reason of an attempt for which the request had too little time: no fault of the upstream."""

LATENCY_WINDOW = 100
MIN_LATENCY_SAMPLES = 20


@dataclass
class CallState:
    """What one call has cost so far, and what it may have done."""

    deadline: Deadline
    call_id: str
    key: str | None = None
    attempts: int = 0
    backoff: float = 0.0
    queued: float = 0.0
    hurried: bool = False
    """Whether the request leaves the tool less time than its own deadline."""
    doubts: set[str] = field(default_factory=set)
    """The reasons of attempts that may have acted all the same."""


class Retrier:
    """Tries one tool."""

    def __init__(
        self,
        tool: str,
        policy: ToolPolicy,
        executor: Executor,
        upstream: Upstream,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._tool = tool
        self._policy = policy
        self._executor = executor
        self._upstream = upstream
        self._draw = draw
        rate = policy.rate_limit
        self._limiter = aiolimiter.AsyncLimiter(rate.calls, rate.per) if rate else None
        self._retry_on = {str(reason) for reason in policy.retry.retry_on}
        self._writes = policy.effect in WRITE_EFFECTS
        self._seconds: deque[float] = deque(maxlen=LATENCY_WINDOW)

    async def run(self, arguments: Json, effort: CallState) -> Any:
        """Return the result of the first attempt that succeeds; raise the last one's Fault."""
        self._upstream.budget.deposit()
        while True:
            try:
                return await self._hedged(arguments, effort)
            except ToolCallError as fault:
                pause = self._pause(fault, effort)
                if pause is None:
                    raise
                telemetry.RETRIES.labels(self._tool, fault.reason).inc()
                trace.get_current_span().add_event(telemetry.RETRY, {"reason": fault.reason})
                effort.backoff += pause
                with telemetry.TRACER.start_as_current_span(telemetry.SPAN_BACKOFF):
                    await anyio.sleep(pause)

    def _pause(self, fault: ToolCallError, effort: CallState) -> float | None:
        """Return how long to wait before the next attempt; None where there is none."""
        retry = self._policy.retry
        if effort.attempts >= retry.max_attempts or fault.reason not in self._retry_on:
            return None
        repeatable = not self._writes or effort.key is not None
        if not (repeatable or not fault.sent or fault.reason in REJECTED_STATUSES):
            return None
        asked = fault.retry_after or 0.0
        spread = min(retry.cap, retry.base * 2 ** (effort.attempts - 1))
        pause: float = asked + self._draw() * spread  # nobody comes at the same moment
        if (
            asked > retry.retry_after_cap
            or pause + MIN_ATTEMPT_SECONDS > effort.deadline.remaining()
        ):
            return None
        if not self._upstream.budget.withdraw():
            telemetry.RETRIES_DENIED.labels(self._upstream.name).inc()
            return None
        return pause

    async def _hedged(self, arguments: Json, effort: CallState) -> Any:
        """Try, and where that takes longer than usual, try a second copy beside it."""
        delay = self._hedge_delay()
        if delay is None:
            return await self._once(arguments, effort)
        ends: list[tuple[int, Any, ToolCallError | None]] = []
        enough = anyio.Event()
        running = 1

        async def copy(number: int) -> None:
            try:
                ends.append((number, await self._once(arguments, effort), None))
            except ToolCallError as fault:
                ends.append((number, None, fault))
            if len(ends) == running or ends[-1][2] is None:
                enough.set()

        async with anyio.create_task_group() as copies:
            copies.start_soon(copy, 0)
            with anyio.move_on_after(delay):
                await enough.wait()
            if not enough.is_set() and self._upstream.budget.withdraw():
                running = 2
                trace.get_current_span().add_event(telemetry.HEDGE)
                copies.start_soon(copy, 1)
            await enough.wait()
            copies.cancel_scope.cancel()
        number, value, fault = next((end for end in ends if end[2] is None), ends[0])
        if running > 1:
            telemetry.HEDGES.labels(self._tool, str(number == 1).lower()).inc()
        if fault:
            raise fault
        return value

    def _hedge_delay(self) -> float | None:
        hedge = self._policy.hedge
        if hedge is None or self._writes:
            return None
        usual = self._quantile(0.95) if hedge.after == "p95" else hedge.after
        return max(hedge.floor, usual or 0.0)

    def _quantile(self, share: float) -> float | None:
        if len(self._seconds) < MIN_LATENCY_SAMPLES:
            return None
        return sorted(self._seconds)[int(share * len(self._seconds))]

    async def _once(self, arguments: Json, effort: CallState) -> Any:
        """Make one attempt, and tell the breaker how it went."""
        permit, breaker = await self._admitted(effort), self._upstream.breaker
        begun = time.monotonic()
        effort.attempts += 1
        try:
            value = await self._observed(arguments, effort)
        except ToolCallError as fault:
            against = fault.kind in TRIPS_BREAKER and fault.reason != DEADLINE_REASON
            (breaker.record_failure if against else breaker.release)(permit)
            if fault.reason in REJECTED_STATUSES:
                self._upstream.pause_for(fault.retry_after or 0.0)
            raise
        except BaseException:  # cancelled: that says nothing about the upstream
            breaker.release(permit)
            raise
        seconds = time.monotonic() - begun
        self._seconds.append(seconds)
        breaker.record_success(permit, seconds)
        return value

    async def _admitted(self, effort: CallState) -> Permit:
        """Return the breaker's leave to try, once gate and rate limit give theirs; or a Fault.

        Whom the breaker would refuse doesn't wait for the others.
        """
        breaker = self._upstream.breaker
        if breaker.would_allow:
            await self._upstream.wait_until_allowed(
                self._policy.retry.retry_after_cap, effort.deadline
            )
            await self._pass_limit(effort.deadline)
            left = effort.deadline.remaining()
            if left < max(MIN_ATTEMPT_SECONDS, self._quantile(0.5) or 0.0):
                raise ToolCallError("deadline_exhausted", "There is no time left for this call.")
        permit = breaker.try_acquire()
        if permit is None:
            self._kept_away(effort)
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

    def _kept_away(self, effort: CallState) -> None:
        """Tell that the breaker let no attempt through."""
        telemetry.BREAKER_REJECTIONS.labels(self._upstream.name).inc()
        trace.get_current_span().add_event(telemetry.BREAKER_OPEN)
        span = telemetry.TRACER.start_span(
            telemetry.SPAN_ATTEMPT.format(number=effort.attempts + 1),
            attributes={telemetry.ERROR_TYPE: "circuit_open", telemetry.ATTR_BREAKER_STATE: "open"},
        )
        span.set_status(StatusCode.ERROR)
        span.end()

    async def _observed(self, arguments: Json, effort: CallState) -> Any:
        number = effort.attempts
        attributes = {
            telemetry.ATTEMPT_NUMBER: number,
            telemetry.ATTR_BREAKER_STATE: self._upstream.breaker.state,
            telemetry.DEADLINE_LEFT: int(effort.deadline.remaining() * 1000),
            telemetry.ATTR_BACKOFF_MS: int(effort.backoff * 1000),
        }
        name = telemetry.SPAN_ATTEMPT.format(number=number)
        begun, outcome = time.monotonic(), "internal"
        with telemetry.TRACER.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                value = await self._bounded(arguments, effort)
                outcome = "ok"
            except ToolCallError as fault:
                outcome = fault.kind
                span.set_attribute(telemetry.ERROR_TYPE, fault.kind)
                span.set_status(StatusCode.ERROR)
                raise
            except anyio.get_cancelled_exc_class():
                outcome = "cancelled"
                raise
            finally:
                seconds = time.monotonic() - begun
                telemetry.ATTEMPTS.labels(self._tool, outcome).inc()
                telemetry.ATTEMPT_SECONDS.labels(self._tool, outcome).observe(seconds)
        return value

    async def _bounded(self, arguments: Json, effort: CallState) -> Any:
        longest = self._policy.attempt_timeout
        patience = max(0.0, min(longest, effort.deadline.remaining()))
        cut_by = DEADLINE_REASON if effort.hurried and patience < longest else ""
        headers: dict[str, str] = {}
        propagate.inject(headers)  # the upstream's spans belong to this attempt
        deadline = Deadline.after(patience)
        ticket = AttemptContext(deadline, effort.call_id, effort.key, headers=headers)
        try:
            return await self._in_time(arguments, ticket, patience, cut_by)
        except ToolCallError as fault:
            if fault.reason == "timeout":
                fault.reason = cut_by or fault.reason
            if ticket.sent and is_ambiguous(fault):
                effort.doubts.add(fault.reason)
            raise
        except Exception:
            effort.doubts |= {UNHANDLED_EXCEPTION} if ticket.sent else set()
            raise

    async def _in_time(
        self, arguments: Json, ticket: AttemptContext, patience: float, cut_by: str
    ) -> Any:
        with anyio.move_on_after(patience):
            return await self._executor.execute(arguments, ticket)
        if not ticket.sent:
            message = "The upstream couldn't be reached in time."
            raise ToolCallError("unavailable", message, cut_by or "connect")
        message = f"The tool didn't answer within {patience:.3g} s."
        raise ToolCallError("timeout", message, cut_by or "timeout", sent=True)
