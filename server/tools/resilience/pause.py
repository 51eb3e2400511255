"""The pause that an upstream asks for with Retry-After."""

import random
import time
from collections.abc import Callable

import anyio

from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError

JITTER = 0.5
"""Waiters are spread over this fraction of the pause: the first may find it extended."""


class Pause:
    """Holds attempts back until the pause is over."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        random_number: Callable[[], float] = random.random,
    ) -> None:
        """`clock` is monotonic, in seconds; `random_number` is in [0, 1)."""
        self._clock = clock
        self._random = random_number
        self._until = 0.0

    def start(self, seconds: float) -> None:
        """Allow no attempt for so many seconds."""
        self._until = max(self._until, self._clock() + seconds)

    async def wait(self, max_wait: float, deadline: Deadline) -> None:
        """Wait until the pause is over; raise a ToolCallError where that takes too long."""
        while (remaining := self._until - self._clock()) > 0:
            if remaining > min(max_wait, deadline.remaining()):
                message = "The upstream asked for a pause."
                raise ToolCallError("rate_limited", message, retry_after=remaining)
            seconds = remaining * (1 + JITTER * self._random())
            await anyio.sleep(min(seconds, deadline.remaining()))
