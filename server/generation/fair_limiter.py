"""A limit on what runs at once, shared between owners: one owner's queue delays no other's."""

import itertools
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio


class FairLimiter:
    """Grants slots in turn to the owners that wait; each gets its share of them at most.

    A share is the slots divided by the owners that hold one or wait for one, at least 1.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[anyio.Event]] = {}
        self._turns = itertools.count(1)
        self._last_turn: dict[str, int] = {}

    @asynccontextmanager
    async def hold(self, owner: str) -> AsyncGenerator[None]:
        """Hold a slot of an owner's."""
        granted = anyio.Event()
        self._waiting.setdefault(owner, deque()).append(granted)
        self._grant()
        try:
            await granted.wait()
            yield
        finally:
            if granted.is_set():
                self._held -= Counter({owner: 1})
            else:
                self._waiting[owner].remove(granted)
                self._drop(owner)
            self._grant()

    def _grant(self) -> None:
        while self._held.total() < self._slots:
            eligible = [name for name in self._waiting if self._may_hold(name)]
            if not eligible:
                break
            owner = min(eligible, key=lambda name: self._last_turn.get(name, 0))
            self._last_turn[owner] = next(self._turns)
            self._held[owner] += 1
            self._waiting[owner].popleft().set()
            self._drop(owner)
        if not (self._held or self._waiting):
            self._last_turn.clear()

    def _may_hold(self, owner: str) -> bool:
        owners = len(self._held.keys() | self._waiting.keys())
        return self._held[owner] < max(1, self._slots // owners)

    def _drop(self, owner: str) -> None:
        if not self._waiting[owner]:
            del self._waiting[owner]
