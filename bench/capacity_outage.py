"""An upstream that is down for a while, under the calls of all replicas: simulated.

The breakers and retry budgets are the server's own, one of each for a replica.
"""

import random
import statistics
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import simpy

from falsework.server.tools.config import BreakerPolicy, RetryBudgetPolicy
from falsework.server.tools.resilience.circuit_breaker import CircuitBreaker
from falsework.server.tools.resilience.retry_budget import RetryBudget

Process = Generator[Any, Any, None]
RECOVERED = 0.95
"""Share of calls that succeed once an upstream is well again."""


class Outage(NamedTuple):
    """What reached an upstream that was down, and how it went on afterwards."""

    reached: float
    """Attempts over calls, while it was down."""
    open_share: float
    """Replicas whose breaker was open at the end of the outage."""
    recovery: float
    """Seconds from its return until 95 % of calls succeed."""


class Caller:
    """One replica's calls of the upstream, with breaker and budget of its own, or a shared one."""

    def __init__(self, clock: Callable[[], float], draw: random.Random) -> None:
        self.breaker = CircuitBreaker(BreakerPolicy(), clock, draw.random)
        self.budget = RetryBudget(RetryBudgetPolicy())


def outage(
    count: int, per_second: float, *, down: tuple[float, float] = (60, 180), seed: int = 1
) -> Outage:
    """Simulate an upstream that fails at once for a while, under the calls of all replicas."""
    world, draw = simpy.Environment(), random.Random(seed)
    callers = [Caller(lambda: world.now, draw) for _ in range(count)]
    attempts: list[float] = []
    ended: list[tuple[float, bool]] = []
    opened = 0.0

    def call(caller: Caller) -> Process:
        caller.budget.deposit()
        good = False
        for attempt in range(3):
            if attempt and not caller.budget.withdraw():
                break
            permit = caller.breaker.try_acquire()
            if permit is None:
                break
            attempts.append(world.now)
            yield world.timeout(0.05)
            good = not down[0] <= world.now < down[1]
            if good:
                caller.breaker.record_success(permit, 0.05)
                break
            caller.breaker.record_failure(permit)
            yield world.timeout(0.1 * 2**attempt)
        ended.append((world.now, good))

    def arrivals() -> Process:
        nonlocal opened
        while True:
            yield world.timeout(draw.expovariate(per_second))
            world.process(call(draw.choice(callers)))
            if world.now < down[1]:
                opened = statistics.fmean(each.breaker.state != "closed" for each in callers)

    world.process(arrivals())
    world.run(until=down[1] + 120)
    while_down = sum(down[0] <= at < down[1] for at in attempts)
    return Outage(
        while_down / (per_second * (down[1] - down[0])), opened, _recovery(ended, down[1])
    )


def _recovery(ended: Sequence[tuple[float, bool]], back: float) -> float:
    """Return after how many seconds 95 % of a second's calls succeed for good."""
    good = [0.0] * 120
    for second in range(120):
        said = [fine for at, fine in ended if back + second <= at < back + second + 1]
        good[second] = statistics.fmean(said) if said else 1.0
    return float(max((second + 1 for second in range(120) if good[second] < RECOVERED), default=0))
