"""How much an MCP server may send: a token bucket over bytes and lines."""

import time
from collections.abc import Callable

LINE_COST = 512
"""Bytes that a line costs at least: parsing many short messages takes longer than one long one."""

BYTES_PER_SECOND = 2**17
"""Bytes per second for notifications, which answer no request."""


class OutputBudget:
    """Grows with time and with each request; a server that overdraws it is cut off."""

    def __init__(
        self, cap: int, clock: Callable[[], float] = time.monotonic, rate: float = BYTES_PER_SECOND
    ) -> None:
        """`cap` is the size limit of one message in bytes; two of them are free at the start."""
        self._cap = cap
        self._clock = clock
        self._rate = rate
        self._limit = 2.0 * cap
        self._left = self._limit
        self._at = clock()

    def expect_response(self) -> None:
        """Allow one more message, as a request was sent."""
        self._left += self._cap

    def spend(self, data: bytes) -> bool:
        """Take the cost of received data; return False where the budget is overdrawn."""
        now = self._clock()
        if self._left < self._limit:
            self._left = min(self._limit, self._left + self._rate * (now - self._at))
        self._at = now
        self._left -= max(len(data), LINE_COST * data.count(b"\n"))
        return self._left >= 0
