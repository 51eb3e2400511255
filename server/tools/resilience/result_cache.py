"""Cache of results: fresh ones for equal calls, older ones for when the tool fails."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import cachetools

MAX_ENTRIES = 1024


@dataclass(frozen=True)
class _Entry:
    value: Any
    at: float


class ResultCache:
    """The results of one tool, at most so many; the least recently used are dropped first."""

    def __init__(self, clock: Callable[[], float], max_entries: int = MAX_ENTRIES) -> None:
        self._clock = clock
        self._entries: cachetools.LRUCache[Hashable, _Entry] = cachetools.LRUCache(max_entries)

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: Hashable, value: Any) -> None:
        """Store a result."""
        self._entries[key] = _Entry(value, self._clock())

    def get(self, key: Hashable, max_age: float) -> tuple[Any] | None:
        """Return a result at most `max_age` seconds old, in a tuple; None where there is none."""
        entry = self._entries.get(key)
        return (entry.value,) if entry and self._clock() - entry.at <= max_age else None
