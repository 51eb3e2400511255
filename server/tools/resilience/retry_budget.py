"""The retry budget of one upstream: every call earns a part of a retry, every retry costs one.

So retries never add more than that part to an upstream's load, at any rate of faults; a throttle
that counts failures shuts retries off just above a tenth of them.
"""

from falsework.server.tools.config.policies import RetryBudgetPolicy


class RetryBudget:
    """A purse of retries; full at the beginning."""

    def __init__(self, policy: RetryBudgetPolicy) -> None:
        self._policy = policy
        self.tokens = policy.burst

    def deposit(self) -> None:
        """Earn for a call."""
        self.tokens = min(self._policy.burst, self.tokens + self._policy.ratio)

    def withdraw(self) -> bool:
        """Pay for a retry or a hedge; False where there isn't enough."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
