"""Seconds and bytes as operators write them: `250ms`, `8s`, `10m`, `256KiB`."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

SECONDS: Mapping[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
BYTES: Mapping[str, int] = {"B": 1, "KiB": 2**10, "MiB": 2**20, "KB": 10**3, "MB": 10**6}

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def _read(written: object, units: Mapping[str, float], example: str) -> object:
    if not isinstance(written, str | bool):
        return written
    quantity = _QUANTITY.fullmatch(str(written).strip())
    if quantity is None or quantity[2] not in units:
        known = ", ".join(units)
        raise ValueError(f"should be a number and one of {known}, as in {example}")
    return float(quantity[1]) * units[quantity[2]]


def _seconds(written: object) -> object:
    return _read(written, SECONDS, "250ms")


def _bytes(written: object) -> object:
    read = _read(written, BYTES, "256KiB")
    return int(read) if isinstance(read, float) else read


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
"""A duration; a bare number is seconds."""

Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]
"""A size; a bare number is bytes."""
