"""The shared state of one upstream: circuit breaker, retry budget, pause."""

import time
from collections.abc import Callable

from falsework.server.observability import telemetry
from falsework.server.tools.config import ToolPolicy
from falsework.server.tools.resilience.circuit_breaker import CircuitBreaker, State
from falsework.server.tools.resilience.pause import Pause
from falsework.server.tools.resilience.retry_budget import RetryBudget


class Upstream:
    """One origin, MCP server or callable, shared by all tools that call it."""

    def __init__(
        self, name: str, policy: ToolPolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Breaker and retry budget of the policy hold for all tools of the upstream."""
        self.name = name
        self.clock = clock
        self.breaker = CircuitBreaker(policy.breaker, clock, on_change=self._count_transition)
        self.budget = RetryBudget(policy.retry_budget)
        self.pause = Pause(clock)

    def _count_transition(self, before: State, after: State) -> None:
        telemetry.BREAKER_TRANSITIONS.labels(self.name, before, after).inc()
