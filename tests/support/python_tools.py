"""Functions that the tests offer as tools."""

import asyncio
import datetime as dt
import os
import sys
import time
from pathlib import Path

from falsework.server.python_worker import ToolError

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


def leave() -> None:
    """Ask the process to end, politely."""
    sys.exit(3)


def interrupt() -> None:
    """Raise what a Ctrl-C would."""
    raise KeyboardInterrupt


async def cancel() -> None:
    """Raise what a cancelled task would."""
    raise asyncio.CancelledError


def when() -> dt.date:
    """Return what isn't JSON."""
    return dt.date(2026, 1, 1)


def half() -> str:
    """Return half a character."""
    return "\ud800"


def shout() -> str:
    """Print, where an answer would go."""
    os.write(1, b"{}\n")
    return input() if sys.stdin.readline() else "heard"


def longest(length: int) -> str:
    """Return a text."""
    return "x" * length
