"""Rows of integers that grow one by one or in blocks, and lie in memory as numpy wants them."""

from array import array
from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray


class IntRows:
    """A growing table (rows, `width`) of int32."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._flat = array("i")

    def append(self, row: tuple[int, ...]) -> None:
        """Add one row."""
        self._flat.extend(row)

    def __iadd__(self, rows: Iterable[tuple[int, ...]]) -> Self:
        for row in rows:
            self._flat.extend(row)
        return self

    def add_block(self, rows: NDArray[np.int32]) -> None:
        """Add rows that are a numpy array already."""
        self._flat.frombytes(rows.tobytes())

    def to_numpy(self) -> NDArray[np.int32]:
        """Return a copy of all rows."""
        return np.array(self._flat, np.int32).reshape(-1, self._width)

    def __len__(self) -> int:
        return len(self._flat) // self._width
