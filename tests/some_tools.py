"""Functions that the tests offer as tools."""

import datetime as dt
import os
import time
from pathlib import Path

from falsework.runtime.executors.python import ToolError

seen: list[int] = []


def double(number: int) -> int:
    """Double a number."""
    seen.append(number)
    return 2 * number


async def double_slowly(number: int) -> int:
    """Double a number, without hurry."""
    return 2 * number


def refuse(why: str) -> None:
    """Say no."""
    raise ToolError(why)


def fail() -> None:
    """Fail with something that nobody should read."""
    raise RuntimeError("password is hunter2")


def today() -> dt.date:
    """Tell the day as no JSON can."""
    return dt.date(2026, 11, 24)


def write_and_fail(path: str) -> None:
    """Write a line, and fail afterwards."""
    write(path)
    raise RuntimeError(path)


def sleep(seconds: float) -> None:
    """Take a while, and don't listen."""
    time.sleep(seconds)


def die() -> None:
    """End the process."""
    os._exit(3)


def write(path: str, seconds: float = 0) -> str:
    """Write a line, after a while."""
    time.sleep(seconds)
    with Path(path).open("a") as file:
        file.write("written\n")
    return "written"
