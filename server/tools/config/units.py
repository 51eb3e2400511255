"""Durations and sizes of the tools file: `250ms`, `8s`, `10m`, `256KiB`."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

SECONDS: Mapping[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
BYTES: Mapping[str, int] = {"B": 1, "KiB": 2**10, "MiB": 2**20, "KB": 10**3, "MB": 10**6}

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def _parse_quantity(value: object, units: Mapping[str, float], example: str) -> object:
    if not isinstance(value, str | bool):
        return value
    quantity = _QUANTITY.fullmatch(str(value).strip())
    if quantity is None or quantity[2] not in units:
        names = ", ".join(units)
        raise ValueError(f"should be a number and one of {names}, as in {example}")
    return float(quantity[1]) * units[quantity[2]]


def _seconds(value: object) -> object:
    return _parse_quantity(value, SECONDS, "250ms")


def _bytes(value: object) -> object:
    read = _parse_quantity(value, BYTES, "256KiB")
    return int(read) if isinstance(read, float) else read


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
"""A duration; a bare number is seconds."""

Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]
"""A size; a bare number is bytes."""
