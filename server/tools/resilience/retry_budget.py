"""The retry budget of one upstream: every call deposits a fraction, every retry withdraws one.

So retries add at most that fraction to an upstream's load, at any failure rate. A throttle that
counts failures, as gRPC's, shuts retries off at a failure rate of a tenth.
"""

from falsework.server.tools.config import RetryBudgetPolicy


class RetryBudget:
    """A budget of retries, full at the beginning."""

    def __init__(self, policy: RetryBudgetPolicy) -> None:
        self._policy = policy
        self.tokens = policy.burst

    def deposit(self) -> None:
        """Add the fraction for a call."""
        self.tokens = min(self._policy.burst, self.tokens + self._policy.ratio)

    def withdraw(self) -> bool:
        """Take one retry or hedge; return False where the budget is exhausted."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
