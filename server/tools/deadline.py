"""An absolute deadline: attempts, pauses and queues take their timeouts from it."""

from dataclasses import dataclass
from typing import Self

import anyio

DEADLINE_HEADER = "x-request-deadline-ms"
"""The HTTP header with the milliseconds left, of requests to the server and to tools."""


@dataclass(frozen=True)
class Deadline:
    """A moment on the event loop's monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline so many seconds from now."""
        return cls(anyio.current_time() + seconds)

    def remaining(self) -> float:
        """Return the seconds left; negative once it has passed."""
        return self.at - anyio.current_time()

    def within(self, seconds: float) -> "Deadline":
        """Return the earlier of this one and the one so many seconds from now."""
        return Deadline(min(self.at, anyio.current_time() + seconds))

    def minus(self, seconds: float) -> "Deadline":
        """Return the deadline so many seconds earlier, to keep a reserve."""
        return Deadline(self.at - seconds)
