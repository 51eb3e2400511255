"""How OpenMP's threads wait for each other on a CPU: spinning or asleep, whichever is faster now.

A step of the model is hundreds of loops that threads share, each of microseconds. At a loop's end a
thread that spins goes on at once; one that sleeps has to be woken, which doubles the time of small
steps. But where another process has taken a core, a thread spins for one that waits for a core, for
as long as the kernel lets the other process run, and a step takes fifty times as long. How long a
thread has waited for a core is counted by the kernel, so it can be told which it is.
"""

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SPIN, SLEEP = 200, 0
"""Milliseconds that a thread spins before it sleeps: as good as always, and never."""

WINDOW = 0.1
"""Seconds of steps after which it is looked how long the thread waited for a core."""

CROWDED = 0.2
"""Share of the time spent waiting for a core from which on spinning is wrong (seen: 0.6 to 1)."""

CALM = 0.03
"""Share below which nobody else wants the cores (asleep: 0.003 without others, 0.12 with one)."""

CALM_SECONDS = 1.0
"""Seconds of steps that have to be calm before threads spin again."""


class WaitPolicy:
    """Chooses how threads wait, from step to step; they sleep at first."""

    def __init__(
        self,
        set_blocktime: Callable[[int], object],
        waited: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`waited`: seconds that this thread has waited for a core since it began."""
        self._set_blocktime = set_blocktime
        self._waited = waited
        self._clock = clock
        self._spins = False
        self._seconds = self._delay = self._calm = 0.0
        set_blocktime(SLEEP)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Watch a step of the model, and choose for the next one."""
        began, delay = self._clock(), self._waited()
        yield
        self._seconds += self._clock() - began
        self._delay += self._waited() - delay
        if self._seconds >= WINDOW:
            self._choose(self._seconds, self._delay / self._seconds)
            self._seconds = self._delay = 0.0

    def _choose(self, seconds: float, share: float) -> None:
        self._calm = self._calm + seconds if share < CALM else 0.0
        spins = share < CROWDED if self._spins else self._calm >= CALM_SECONDS
        if spins != self._spins:
            self._spins = spins
            self._set_blocktime(SPIN if spins else SLEEP)


def wait_policy() -> WaitPolicy | None:
    """Return the policy of this thread's loops; None where there is nothing to choose.

    GNU's runtime can't change how it waits, and an operator may have chosen by KMP_BLOCKTIME.
    """
    if "KMP_BLOCKTIME" in os.environ:
        return None
    try:
        set_blocktime = ctypes.CDLL(None).kmp_set_blocktime
        schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except (AttributeError, OSError):
        return None
    if len(os.pread(schedstat, 100, 0).split()) < 2:  # noqa: PLR2004 - run time, waiting time, count
        return None
    return WaitPolicy(set_blocktime, lambda: int(os.pread(schedstat, 100, 0).split()[1]) / 1e9)
