"""What was made of texts, kept for the texts that come again."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")

ENTRY_COST = 200
"""What an entry costs beside its text, as characters."""


class KeptByText(Generic[T]):
    """Keeps a value for each text, the least recently used leaving first; threads share it."""

    def __init__(self, size: int) -> None:
        """`size` is how many characters the texts have that are kept."""
        self._size = size
        self._used = 0
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> T | None:
        """Return the value of a text; None where there is none."""
        with self._lock:
            value = self._kept.get(text)
            if value is not None:
                self._kept.move_to_end(text)
            return value

    def put(self, text: str, value: T) -> None:
        """Keep a value, unless its text is longer than all that may be kept."""
        if len(text) + ENTRY_COST > self._size:
            return
        with self._lock:
            if text not in self._kept:
                self._used += len(text) + ENTRY_COST
            self._kept[text] = value
            self._kept.move_to_end(text)
            while self._used > self._size:
                oldest, _ = self._kept.popitem(last=False)
                self._used -= len(oldest) + ENTRY_COST
