"""The shared state of one upstream: circuit breaker, retry budget, pause after Retry-After."""

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
"""The longest pause in seconds, whatever Retry-After says."""

JITTER = 0.5
"""Waiters are spread over this fraction of the pause: the first may find it extended."""


class Upstream:
    """One origin, MCP server or callable, shared by all tools that call it."""

    def __init__(
        self,
        name: str,
        policy: ToolPolicy,
        clock: Callable[[], float] = time.monotonic,
        random_number: Callable[[], float] = random.random,
    ) -> None:
        """Breaker and retry budget of the policy hold for all tools of the upstream."""
        self.name = name
        self.breaker = CircuitBreaker(policy.breaker, clock, on_change=self._count_transition)
        self.budget = RetryBudget(policy.retry_budget)
        self.clock = clock
        self._random = random_number
        self._paused_until = 0.0

    def pause_for(self, seconds: float) -> None:
        """Allow no attempt for so many seconds, as the upstream asked."""
        self._paused_until = max(self._paused_until, self.clock() + min(seconds, MAX_PAUSE))

    async def wait_until_allowed(self, max_wait: float, deadline: Deadline) -> None:
        """Wait until the pause is over; raise a ToolCallError where that takes too long."""
        while (remaining := self._paused_until - self.clock()) > 0:
            if remaining > min(max_wait, deadline.remaining()):
                message = "The upstream asked for a pause."
                raise ToolCallError("rate_limited", message, retry_after=remaining)
            pause = remaining * (1 + JITTER * self._random())
            await anyio.sleep(min(pause, deadline.remaining()))

    def _count_transition(self, before: State, after: State) -> None:
        telemetry.BREAKER_TRANSITIONS.labels(self.name, before, after).inc()
