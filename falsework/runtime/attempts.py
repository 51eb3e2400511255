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
from opentelemetry import propagate
from opentelemetry.trace import StatusCode

from falsework.runtime import telemetry
from falsework.runtime.breakers import Permit
from falsework.runtime.deadlines import Deadline
from falsework.runtime.executors.base import Executor, Json, Ticket
from falsework.runtime.faults import BREAKING, RAISED, SAID_NO, Fault, doubtful
from falsework.runtime.policies import WRITING, ToolPolicy
from falsework.runtime.upstreams import Upstream

LEAST_SECONDS = 0.05
"""With less time left no attempt is started."""

CUT = "deadline"
"""The reason of an attempt for which the request had too little time: no fault of the upstream."""

SAMPLES = 100
ENOUGH_SAMPLES = 20


@dataclass
class Effort:
    """What one call has cost so far, and what it may have done."""

    deadline: Deadline
    call_id: str
    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    backoff: float = 0.0
    queued: float = 0.0
    hurried: bool = False
    """Whether the request leaves the tool less time than its own deadline."""
    doubts: set[str] = field(default_factory=set)
    """The reasons of attempts that may have acted all the same."""


class Attempts:
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
        self._writes = policy.effect in WRITING
        self._seconds: deque[float] = deque(maxlen=SAMPLES)

    async def run(self, arguments: Json, effort: Effort) -> Any:
        """Return the result of the first attempt that succeeds; raise the last one's Fault."""
        self._upstream.budget.deposit()
        while True:
            try:
                return await self._hedged(arguments, effort)
            except Fault as fault:
                pause = self._pause(fault, effort)
                if pause is None:
                    raise
                telemetry.RETRIES.labels(self._tool, fault.reason).inc()
                effort.backoff += pause
                with telemetry.TRACER.start_as_current_span(telemetry.PAUSE):
                    await anyio.sleep(pause)

    def _pause(self, fault: Fault, effort: Effort) -> float | None:
        """Return how long to wait before the next attempt; None where there is none."""
        retry = self._policy.retry
        if effort.attempts >= retry.max_attempts or fault.reason not in self._retry_on:
            return None
        repeatable = not self._writes or effort.key is not None
        if not (repeatable or not fault.sent or fault.reason in SAID_NO):
            return None
        asked = fault.retry_after or 0.0
        spread = min(retry.cap, retry.base * 2 ** (effort.attempts - 1))
        pause: float = asked + self._draw() * spread  # nobody comes at the same moment
        if asked > retry.retry_after_cap or pause + LEAST_SECONDS > effort.deadline.left():
            return None
        if not self._upstream.budget.withdraw():
            telemetry.RETRIES_DENIED.labels(self._upstream.name).inc()
            return None
        return pause

    async def _hedged(self, arguments: Json, effort: Effort) -> Any:
        """Try, and where that takes longer than usual, try a second copy beside it."""
        delay = self._hedge_delay()
        if delay is None:
            return await self._once(arguments, effort)
        ends: list[tuple[int, Any, Fault | None]] = []
        enough = anyio.Event()
        running = 1

        async def copy(number: int) -> None:
            try:
                ends.append((number, await self._once(arguments, effort), None))
            except Fault as fault:
                ends.append((number, None, fault))
            if len(ends) == running or ends[-1][2] is None:
                enough.set()

        async with anyio.create_task_group() as copies:
            copies.start_soon(copy, 0)
            with anyio.move_on_after(delay):
                await enough.wait()
            if not enough.is_set() and self._upstream.budget.withdraw():
                running = 2
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
        if len(self._seconds) < ENOUGH_SAMPLES:
            return None
        return sorted(self._seconds)[int(share * len(self._seconds))]

    async def _once(self, arguments: Json, effort: Effort) -> Any:
        """Make one attempt, and tell the breaker how it went."""
        permit, breaker = await self._admitted(effort), self._upstream.breaker
        begun = time.monotonic()
        effort.attempts += 1
        try:
            value = await self._observed(arguments, effort)
        except Fault as fault:
            against = fault.kind in BREAKING and fault.reason != CUT
            (breaker.fail if against else breaker.release)(permit)
            if fault.reason in SAID_NO:
                self._upstream.close_for(fault.retry_after or 0.0)
            raise
        except BaseException:  # cancelled: that says nothing about the upstream
            breaker.release(permit)
            raise
        finally:
            telemetry.RETRY_BUDGET.labels(self._upstream.name).set(self._upstream.budget.tokens)
        seconds = time.monotonic() - begun
        self._seconds.append(seconds)
        breaker.succeed(permit, seconds)
        return value

    async def _admitted(self, effort: Effort) -> Permit:
        """Return the breaker's leave to try, once gate and rate limit give theirs; or a Fault.

        Whom the breaker would refuse doesn't wait for the others.
        """
        breaker = self._upstream.breaker
        if breaker.admits:
            await self._upstream.pass_gate(self._policy.retry.retry_after_cap, effort.deadline)
            await self._pass_limit(effort.deadline)
            left = effort.deadline.left()
            if left < max(LEAST_SECONDS, self._quantile(0.5) or 0.0):
                raise Fault("deadline_exhausted", "There is no time left for this call.")
        permit = breaker.admit()
        if permit is None:
            telemetry.BREAKER_REJECTIONS.labels(self._upstream.name).inc()
            message = "The upstream keeps failing, so it is left alone for a while."
            raise Fault("circuit_open", message, retry_after=breaker.opens_in())
        return permit

    async def _pass_limit(self, deadline: Deadline) -> None:
        if self._limiter is None:
            return
        with anyio.move_on_after(max(0.0, deadline.left())):
            await self._limiter.acquire()
            return
        raise Fault("rate_limited", "The tool's rate limit is reached.", retry_after=1.0)

    async def _observed(self, arguments: Json, effort: Effort) -> Any:
        number = effort.attempts
        attributes = {
            telemetry.ATTEMPT_NUMBER: number,
            telemetry.BREAKER: self._upstream.breaker.state,
            telemetry.DEADLINE_LEFT: int(effort.deadline.left() * 1000),
            telemetry.BACKOFF: int(effort.backoff * 1000),
        }
        name = telemetry.ATTEMPT.format(number=number)
        begun, outcome = time.monotonic(), "cancelled"
        with telemetry.TRACER.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                value = await self._bounded(arguments, effort)
                outcome = "ok"
            except Fault as fault:
                outcome = fault.kind
                span.set_attribute(telemetry.ERROR_TYPE, fault.kind)
                span.set_status(StatusCode.ERROR, fault.kind)
                raise
            finally:
                seconds = time.monotonic() - begun
                telemetry.ATTEMPT_SECONDS.labels(self._tool, outcome).observe(seconds)
        return value

    async def _bounded(self, arguments: Json, effort: Effort) -> Any:
        longest = self._policy.attempt_timeout
        patience = max(0.0, min(longest, effort.deadline.left()))
        cut_by = CUT if effort.hurried and patience < longest else ""
        headers = dict(effort.headers)
        propagate.inject(headers)  # the upstream's spans belong to this attempt
        deadline = Deadline.after(patience)
        ticket = Ticket(deadline, effort.call_id, effort.key, headers=headers)
        try:
            return await self._in_time(arguments, ticket, patience, cut_by)
        except Fault as fault:
            if fault.reason == "timeout":
                fault.reason = cut_by or fault.reason
            if ticket.sent and doubtful(fault):
                effort.doubts.add(fault.reason)
            raise
        except Exception:
            effort.doubts |= {RAISED} if ticket.sent else set()
            raise

    async def _in_time(self, arguments: Json, ticket: Ticket, patience: float, cut_by: str) -> Any:
        with anyio.move_on_after(patience):
            return await self._executor.attempt(arguments, ticket)
        if not ticket.sent:
            message = "The upstream couldn't be reached in time."
            raise Fault("unavailable", message, cut_by or "connect")
        message = f"The tool didn't answer within {patience:.3g} s."
        raise Fault("timeout", message, cut_by or "timeout", sent=True)
