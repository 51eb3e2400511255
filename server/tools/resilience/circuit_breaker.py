"""The circuit breaker of one upstream: a state machine without I/O, on a clock that is given.

closed ──(enough failures or slow calls in the window)──▶ open ──(its time is over)──▶ half open
  ▲                                                        ▲                              │
  └──────────────(enough probes in a row succeed)──────────┼──────────────────────────────┤
                                                           └────────(a probe fails)───────┘

Rules: half open, one probe at a time is let through. A permit that was given before the state last
changed says nothing any more. Whoever is cancelled, refused or wrong says nothing about the
upstream.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from falsework.server.tools.config.policies import BreakerPolicy

State = Literal["closed", "open", "half_open"]
JITTER = 0.2


@dataclass(frozen=True)
class Permit:
    """Leave to try; it is to be given back by exactly one of succeed, fail and release."""

    generation: int
    probe: bool


class CircuitBreaker:
    """Keeps calls away from an upstream that fails."""

    def __init__(
        self,
        policy: BreakerPolicy,
        now: Callable[[], float],
        draw: Callable[[], float] = random.random,
        changed: Callable[[State, State], None] | None = None,
    ) -> None:
        """`now` is a monotonic clock in seconds, `draw` a number in [0, 1) for the jitter."""
        self._policy = policy
        self._now = now
        self._draw = draw
        self._changed = changed
        self._state: State = "closed"
        self._generation = 0
        self._calls: deque[tuple[float, bool, bool]] = deque()
        self._opened_in_a_row = 0
        self._half_open_at = 0.0
        self._probing = False
        self._probes_right = 0

    @property
    def state(self) -> State:
        """The state; an open breaker whose time is over is half open."""
        over = self._state == "open" and self._now() >= self._half_open_at
        return "half_open" if over else self._state

    def seconds_until_half_open(self) -> float:
        """Return the seconds until a probe is let through."""
        return max(0.0, self._half_open_at - self._now()) if self._state == "open" else 0.0

    @property
    def would_allow(self) -> bool:
        """Whether somebody who asked now would be let through."""
        busy = self.state == "half_open" and self._probing
        return not self._policy.enabled or not (self.state == "open" or busy)

    def try_acquire(self) -> Permit | None:
        """Return leave to try, or None."""
        if not self._policy.enabled:
            return Permit(self._generation, probe=False)
        if not self.would_allow:
            return None
        if self.state == "closed":
            return Permit(self._generation, probe=False)
        if self._state == "open":
            self._become("half_open")
        self._probing = True
        return Permit(self._generation, probe=True)

    def record_success(self, permit: Permit, seconds: float) -> None:
        """Record that the upstream answered, after so many seconds."""
        self._record(permit, failed=False, slow=seconds > self._policy.slow_call)

    def record_failure(self, permit: Permit) -> None:
        """Record that the upstream failed."""
        self._record(permit, failed=True, slow=False)

    def release(self, permit: Permit) -> None:
        """Give a permit back that told nothing about the upstream."""
        if permit.probe and permit.generation == self._generation:
            self._probing = False

    def _record(self, permit: Permit, *, failed: bool, slow: bool) -> None:
        if permit.generation != self._generation:
            return
        if permit.probe:
            self._probed(failed=failed or slow)
            return
        self._calls.append((self._now(), failed, slow))
        self._forget()
        if self._is_bad():
            self._open()

    def _probed(self, *, failed: bool) -> None:
        self._probing = False
        if failed:
            self._open()
            return
        self._probes_right += 1
        if self._probes_right >= self._policy.successes_to_close:
            self._opened_in_a_row = 0
            self._become("closed")

    def _forget(self) -> None:
        oldest = self._now() - self._policy.window
        while self._calls and self._calls[0][0] < oldest:
            self._calls.popleft()

    def _is_bad(self) -> bool:
        count = len(self._calls)
        if count < self._policy.min_calls:
            return False
        failures = sum(failed for _, failed, _ in self._calls) / count
        slow = sum(slow for _, _, slow in self._calls) / count
        return failures >= self._policy.failure_rate or slow >= self._policy.slow_rate

    def _open(self) -> None:
        seconds = min(self._policy.open_for * 2**self._opened_in_a_row, self._policy.open_max)
        spread = 1 + JITTER * (2 * self._draw() - 1)
        self._opened_in_a_row += 1
        self._half_open_at = self._now() + seconds * spread
        self._become("open")

    def _become(self, state: State) -> None:
        before, self._state = self._state, state
        self._generation += 1
        self._calls.clear()
        self._probing, self._probes_right = False, 0
        if self._changed:
            self._changed(before, state)
