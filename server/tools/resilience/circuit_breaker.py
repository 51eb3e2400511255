"""The circuit breaker of one upstream: a state machine without I/O and with an injected clock.

closed ──(enough failures or slow calls in the window)──▶ open ──(its time is over)──▶ half open
  ▲                                                        ▲                              │
  └──────────────(enough probes in a row succeed)──────────┼──────────────────────────────┤
                                                           └────────(a probe fails)───────┘

Rules: half open, one probe at a time is allowed. Outcomes of permits from before the last change of
state are ignored. Cancelled, refused and invalid calls count neither as successes nor as failures.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from falsework.server.tools.config import BreakerPolicy

State = Literal["closed", "open", "half_open"]
JITTER = 0.2


@dataclass(frozen=True)
class Permit:
    """Permission for one attempt; ended by record_success, record_failure or release."""

    generation: int
    probe: bool


class CircuitBreaker:
    """Refuses calls to an upstream that fails."""

    def __init__(
        self,
        policy: BreakerPolicy,
        clock: Callable[[], float],
        random_number: Callable[[], float] = random.random,
        on_change: Callable[[State, State], None] | None = None,
    ) -> None:
        """`now` is a monotonic clock in seconds, `draw` a number in [0, 1) for the jitter."""
        self._policy = policy
        self._clock = clock
        self._random = random_number
        self._on_change = on_change
        self._state: State = "closed"
        self._generation = 0
        self._calls: deque[tuple[float, bool, bool]] = deque()
        self._consecutive_opens = 0
        self._half_open_at = 0.0
        self._probe_in_flight = False
        self._probe_successes = 0

    @property
    def state(self) -> State:
        """The state; an open breaker whose time is over is half open."""
        expired = self._state == "open" and self._clock() >= self._half_open_at
        return "half_open" if expired else self._state

    def seconds_until_half_open(self) -> float:
        """Return the seconds until a probe is allowed; 0 unless the breaker is open."""
        return max(0.0, self._half_open_at - self._clock()) if self._state == "open" else 0.0

    @property
    def would_allow(self) -> bool:
        """Whether an attempt would be allowed now."""
        busy = self.state == "half_open" and self._probe_in_flight
        return not self._policy.enabled or not (self.state == "open" or busy)

    def try_acquire(self) -> Permit | None:
        """Return a permit for an attempt, or None."""
        if not self._policy.enabled:
            return Permit(self._generation, probe=False)
        if not self.would_allow:
            return None
        if self.state == "closed":
            return Permit(self._generation, probe=False)
        if self._state == "open":
            self._change_state("half_open")
        self._probe_in_flight = True
        return Permit(self._generation, probe=True)

    def record_success(self, permit: Permit, seconds: float) -> None:
        """Record that the upstream answered, after so many seconds."""
        slow_call = self._policy.slow_call
        self._record(permit, failed=False, slow=slow_call is not None and seconds > slow_call)

    def record_failure(self, permit: Permit) -> None:
        """Record that the upstream failed."""
        self._record(permit, failed=True, slow=False)

    def release(self, permit: Permit) -> None:
        """Return a permit whose attempt says nothing about the upstream."""
        if permit.probe and permit.generation == self._generation:
            self._probe_in_flight = False

    def _record(self, permit: Permit, *, failed: bool, slow: bool) -> None:
        if permit.generation != self._generation:
            return
        if permit.probe:
            self._record_probe(failed=failed or slow)
            return
        self._calls.append((self._clock(), failed, slow))
        self._drop_old_calls()
        if self._should_open():
            self._open()

    def _record_probe(self, *, failed: bool) -> None:
        self._probe_in_flight = False
        if failed:
            self._open()
            return
        self._probe_successes += 1
        if self._probe_successes >= self._policy.successes_to_close:
            self._consecutive_opens = 0
            self._change_state("closed")

    def _drop_old_calls(self) -> None:
        oldest = self._clock() - self._policy.window
        while self._calls and self._calls[0][0] < oldest:
            self._calls.popleft()

    def _should_open(self) -> bool:
        count = len(self._calls)
        if count < self._policy.min_calls:
            return False
        failures = sum(failed for _, failed, _ in self._calls) / count
        slow = sum(slow for _, _, slow in self._calls) / count
        return failures >= self._policy.failure_rate or slow >= self._policy.slow_rate

    def _open(self) -> None:
        seconds = min(self._policy.open_for * 2**self._consecutive_opens, self._policy.open_max)
        jitter = 1 + JITTER * (2 * self._random() - 1)
        self._consecutive_opens += 1
        self._half_open_at = self._clock() + seconds * jitter
        self._change_state("open")

    def _change_state(self, state: State) -> None:
        before, self._state = self._state, state
        self._generation += 1
        self._calls.clear()
        self._probe_in_flight, self._probe_successes = False, 0
        if self._on_change:
            self._on_change(before, state)
