"""Who is being served: at most so many at once, and nobody new once the server closes."""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import cast

from anyio import CancelScope

from falsework.server.engines.base import OutputDelta
from falsework.server.errors import RateLimitError, ShuttingDown


class AdmissionController:
    """Counts the requests that run, and can send them home."""

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self._waits: set[CancelScope] = set()
        self.taken = 0
        self.closed_at = math.inf

    @property
    def draining(self) -> bool:
        """Whether nobody new is let in."""
        return self.closed_at < math.inf

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Hold a seat, or refuse where there is none."""
        if self.draining:
            raise ShuttingDown("This server is shutting down.")
        if self.taken >= self._seats:
            message = f"This server answers {self._seats} requests at once. Try again soon."
            raise RateLimitError(message)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def cancel_on_shutdown(
        self, pieces: AsyncIterator[OutputDelta]
    ) -> AsyncGenerator[OutputDelta]:
        """Pass an engine's pieces on until they end or everybody is sent home."""
        # The contract is that closing it aborts, so it can be closed: it's a generator.
        async with aclosing(cast("AsyncGenerator[OutputDelta]", pieces)) as open_pieces:
            while (piece := await self._next(open_pieces)) is not None:
                yield piece

    def stop_accepting(self) -> None:
        """Let nobody new in."""
        self.closed_at = min(self.closed_at, time.monotonic())

    def start_drain(self, drain_seconds: float) -> float:
        """Close, and return for how many seconds more who is there may stay."""
        self.stop_accepting()
        return self.closed_at + drain_seconds - time.monotonic()

    def cancel_all(self) -> None:
        """End every request that still runs with an error."""
        self.stop_accepting()
        for wait in tuple(self._waits):
            wait.cancel()

    async def _next(self, pieces: AsyncGenerator[OutputDelta]) -> OutputDelta | None:
        with CancelScope() as wait:
            self._waits.add(wait)
            try:
                return await anext(pieces, None)
            finally:
                self._waits.discard(wait)
        raise ShuttingDown("This server shut down before the reply was finished.")
