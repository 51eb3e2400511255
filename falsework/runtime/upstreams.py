"""What fails together is judged together: an origin's breaker, its retry budget, its gate."""

import time
from collections.abc import Callable

import aiolimiter
import anyio

from falsework.runtime import telemetry
from falsework.runtime.breakers import Breaker, State
from falsework.runtime.budgets import RetryBudget
from falsework.runtime.deadlines import Deadline
from falsework.runtime.faults import Fault
from falsework.runtime.policies import ToolPolicy


class Upstream:
    """One origin, MCP server or callable, shared by all tools that reach it."""

    def __init__(
        self, name: str, policy: ToolPolicy, now: Callable[[], float] = time.monotonic
    ) -> None:
        """The policy is that of the first tool that reaches it."""
        self.name = name
        self.breaker = Breaker(policy.breaker, now, changed=self._changed)
        self.budget = RetryBudget(policy.retry_budget)
        rate = policy.rate_limit
        self._limiter = aiolimiter.AsyncLimiter(rate.calls, rate.per) if rate else None
        self._now = now
        self._closed_until = 0.0

    def close_for(self, seconds: float) -> None:
        """Let nobody through for so long: the upstream asked for it."""
        self._closed_until = max(self._closed_until, self._now() + seconds)

    async def pass_gate(self, longest: float, deadline: Deadline) -> None:
        """Wait until the upstream may be asked; raise a Fault where that takes too long."""
        closed = self._closed_until - self._now()
        if closed > min(longest, deadline.left()):
            message = "The upstream asked for a pause."
            raise Fault("rate_limited", message, retry_after=closed)
        if closed > 0:
            await anyio.sleep(closed)
        if self._limiter is None:
            return
        with anyio.move_on_after(max(0.0, deadline.left())):
            await self._limiter.acquire()
            return
        raise Fault("rate_limited", "The upstream's rate limit is reached.", retry_after=1.0)

    def _changed(self, before: State, after: State) -> None:
        telemetry.BREAKER_TRANSITIONS.labels(self.name, before, after).inc()
