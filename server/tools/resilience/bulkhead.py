"""Bulkhead: limits the concurrent calls of one tool, and how long others wait for a slot."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import anyio

from falsework.server.tools.config import BulkheadPolicy
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError


class Bulkhead:
    """Keeps one slow tool from using up all tasks and connections."""

    def __init__(self, policy: BulkheadPolicy) -> None:
        self._policy = policy
        self._slots = anyio.CapacityLimiter(policy.max_concurrent)

    @property
    def in_flight(self) -> int:
        """The number of running calls."""
        return self._slots.statistics().borrowed_tokens

    @property
    def queued(self) -> int:
        """The number of waiting calls."""
        return self._slots.statistics().tasks_waiting

    @asynccontextmanager
    async def acquire(self, deadline: Deadline) -> AsyncGenerator[None]:
        """Hold a slot; raise a ToolCallError `overloaded` where none gets free in time."""
        owner = object()
        await self._take_slot(owner, deadline)
        try:
            yield
        finally:
            self._slots.release_on_behalf_of(owner)

    async def _take_slot(self, owner: object, deadline: Deadline) -> None:
        with suppress(anyio.WouldBlock):
            self._slots.acquire_on_behalf_of_nowait(owner)
            return
        if self.queued < self._policy.max_queue:
            with anyio.move_on_after(min(self._policy.queue_timeout, deadline.remaining())):
                await self._slots.acquire_on_behalf_of(owner)
                return
            if deadline.remaining() <= 0:
                raise ToolCallError("deadline_exhausted", "There is no time left for this call.")
        raise ToolCallError(
            "overloaded", "Too many calls of this tool are running. Try again later."
        )
