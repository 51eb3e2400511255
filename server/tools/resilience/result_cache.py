"""Results that may be used again, and older ones for when a tool fails."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import cachetools

MAX_ENTRIES = 1024


@dataclass(frozen=True)
class _Kept:
    value: Any
    at: float


class ResultCache:
    """The last results of one tool, the least used forgotten first."""

    def __init__(self, now: Callable[[], float], kept: int = MAX_ENTRIES) -> None:
        self._now = now
        self._kept: cachetools.LRUCache[Hashable, _Kept] = cachetools.LRUCache(kept)

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a result."""
        self._kept[key] = _Kept(value, self._now())

    def get(self, key: Hashable, oldest: float) -> tuple[Any] | None:
        """Return a result that is at most `oldest` seconds old, in a tuple; None where none is."""
        kept = self._kept.get(key)
        return (kept.value,) if kept and self._now() - kept.at <= oldest else None
