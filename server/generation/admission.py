"""Admission control: a limit on requests at once, and none once the server shuts down."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from falsework.server.errors import RateLimitError, ShuttingDown
from falsework.server.observability import telemetry


class AdmissionController:
    """Limits concurrent requests, and cancels them at the end of the drain period."""

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self._cancels: set[Callable[[], None]] = set()
        self.taken = 0
        self.closed_at = math.inf

    @property
    def draining(self) -> bool:
        """Whether no new request is accepted."""
        return self.closed_at < math.inf

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Hold a seat; raise RateLimitError where there is none, ShuttingDown at the end."""
        if self.draining:
            raise ShuttingDown("This server is shutting down.")
        if self.taken >= self._seats:
            message = f"This server answers {self._seats} requests at once. Try again soon."
            raise RateLimitError(message)
        self.taken += 1
        try:
            with telemetry.REQUESTS_RUNNING.track_inprogress():
                yield
        finally:
            self.taken -= 1

    @contextmanager
    def cancel_at_shutdown(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Have `cancel` called, within this context, if running requests are ended."""
        self._cancels.add(cancel)
        try:
            yield
        finally:
            self._cancels.discard(cancel)

    def stop_accepting(self) -> None:
        """Accept no new request."""
        self.closed_at = min(self.closed_at, time.monotonic())

    def start_drain(self, drain_seconds: float) -> float:
        """Stop accepting requests and return how many seconds the running ones have left."""
        self.stop_accepting()
        return self.closed_at + drain_seconds - time.monotonic()

    def cancel_all(self) -> None:
        """End every request that still runs with an error."""
        self.stop_accepting()
        for cancel in tuple(self._cancels):
            cancel()
