"""What fails together is judged together: an origin's breaker, its retry budget, its gate."""

import random
import time
from collections.abc import Callable

import anyio

from falsework.server.observability import telemetry
from falsework.server.tools.config.policies import ToolPolicy
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.resilience.circuit_breaker import CircuitBreaker, State
from falsework.server.tools.resilience.retry_budget import RetryBudget

MAX_PAUSE = 300.0
"""Seconds after which an upstream is asked again, whatever it said."""

JITTER = 0.5
"""Who waited for the gate comes up to so much later than it opens: the first may close it again."""


class Upstream:
    """One origin, MCP server or callable, shared by all tools that reach it."""

    def __init__(
        self,
        name: str,
        policy: ToolPolicy,
        now: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Breaker and retry budget of the policy hold for all tools that reach it."""
        self.name = name
        self.breaker = CircuitBreaker(policy.breaker, now, changed=self._changed)
        self.budget = RetryBudget(policy.retry_budget)
        self._now = now
        self._draw = draw
        self._closed_until = 0.0

    def pause_for(self, seconds: float) -> None:
        """Let nobody through for so long: the upstream asked for it."""
        self._closed_until = max(self._closed_until, self._now() + min(seconds, MAX_PAUSE))

    async def wait_until_allowed(self, longest: float, deadline: Deadline) -> None:
        """Wait until the upstream may be asked; raise a Fault where that takes too long."""
        while (closed := self._closed_until - self._now()) > 0:
            if closed > min(longest, deadline.remaining()):
                message = "The upstream asked for a pause."
                raise ToolCallError("rate_limited", message, retry_after=closed)
            pause = closed * (1 + JITTER * self._draw())
            await anyio.sleep(min(pause, deadline.remaining()))

    def _changed(self, before: State, after: State) -> None:
        telemetry.BREAKER_TRANSITIONS.labels(self.name, before, after).inc()
