"""Durations and sizes of the tools file: `250ms`, `8s`, `10m`, `256KiB`."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, ByteSize, Field

SECONDS: Mapping[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def _parse_seconds(value: object) -> object:
    if not isinstance(value, str | bool):
        return value
    quantity = _QUANTITY.fullmatch(str(value).strip())
    if quantity is None or quantity[2] not in SECONDS:
        units = ", ".join(SECONDS)
        raise ValueError(f"should be a number and one of {units}, as in 250ms")
    return float(quantity[1]) * SECONDS[quantity[2]]


Seconds = Annotated[float, BeforeValidator(_parse_seconds), Field(ge=0)]
"""A duration; a bare number is seconds."""

Bytes = Annotated[ByteSize, Field(ge=1)]
"""A size; a bare number is bytes."""
