"""The circuit breaker, against a model of it, on a clock that only moves when told."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from falsework.server.tools.config.policies import BreakerPolicy
from falsework.server.tools.resilience.circuit_breaker import CircuitBreaker, Permit

POLICY = BreakerPolicy(window=30, min_calls=4, failure_rate=0.5, open_for=5, open_max=20)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock, policy: BreakerPolicy = POLICY) -> CircuitBreaker:
    return CircuitBreaker(policy, clock, random_number=lambda: 0.5)


def admitted(one: CircuitBreaker) -> Permit:
    permit = one.try_acquire()
    assert permit is not None
    return permit


def opened(clock: Clock) -> CircuitBreaker:
    one = breaker(clock)
    for _ in range(POLICY.min_calls):
        one.record_failure(admitted(one))
    assert one.state == "open"
    return one


class AnyBreaker(RuleBasedStateMachine):
    """Whatever happens in whatever order, these hold."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.changes: list[tuple[str, str]] = []
        self.breaker = CircuitBreaker(
            POLICY, self.clock, lambda: 0.5, lambda a, b: self.changes.append((a, b))
        )
        self.held: list[Permit] = []
        self.probing: list[Permit] = []

    @rule()
    def ask(self) -> None:
        state = self.breaker.state
        permit = self.breaker.try_acquire()
        assert (permit is None) == (state == "open" or (state == "half_open" and bool(self.live())))
        if permit:
            assert permit.probe == (state == "half_open")
            self.held.append(permit)
            self.probing += [permit] if permit.probe else []

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 99), how=st.sampled_from(["succeed", "slow", "fail", "release"]))
    def end(self, which: int, how: str) -> None:
        permit = self.held.pop(which % len(self.held))
        before = len(self.changes)
        stale = permit.generation != self.breaker._generation
        match how:
            case "fail":
                self.breaker.record_failure(permit)
            case "release":
                self.breaker.release(permit)
            case _:
                self.breaker.record_success(permit, 9 if how == "slow" else 0.1)
        if permit in self.probing:
            self.probing.remove(permit)
        if stale or how == "release":
            assert len(self.changes) == before, "what was begun before the last change says nothing"

    @rule(seconds=st.sampled_from([0.1, 4.9, 5.1, 20.1, 31.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def live(self) -> list[Permit]:
        return [one for one in self.probing if one.generation == self.breaker._generation]

    @invariant()
    def one_probe_at_most(self) -> None:
        assert len(self.live()) <= 1

    @invariant()
    def it_never_stays_shut_for_longer_than_it_may(self) -> None:
        assert self.breaker.seconds_until_half_open() <= POLICY.open_max * 1.2

    @invariant()
    def states_follow_each_other_as_drawn(self) -> None:
        drawn = {("closed", "open"), ("open", "half_open"), ("half_open", "open"),
                 ("half_open", "closed")}  # fmt: skip
        assert set(self.changes) <= drawn


TestAnyBreaker = AnyBreaker.TestCase
TestAnyBreaker.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


def test_exactly_one_of_fifty_callers_is_let_through_half_open() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 5.1

    permits = [one.try_acquire() for _ in range(50)]

    assert sum(permit is not None for permit in permits) == 1


def test_a_probe_that_is_cancelled_gives_its_place_back() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 5.1

    one.release(admitted(one))

    assert one.state == "half_open"
    assert admitted(one).probe


def test_three_probes_in_a_row_close_it() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 5.1

    for _ in range(POLICY.successes_to_close):
        assert one.state == "half_open"
        one.record_success(admitted(one), 0.1)

    assert one.state == "closed"


def test_it_stays_open_longer_each_time_up_to_a_bound() -> None:
    clock = Clock()
    one = opened(clock)
    waits = []
    for _ in range(4):
        waits.append(one.seconds_until_half_open())
        clock.now += one.seconds_until_half_open() + 0.1
        one.record_failure(admitted(one))

    assert waits == [5, 10, 20, 20]


def test_an_answer_from_before_it_opened_changes_nothing() -> None:
    clock = Clock()
    one = breaker(clock)
    old = admitted(one)
    for _ in range(POLICY.min_calls):
        one.record_failure(admitted(one))
    clock.now += 5.1
    probe = admitted(one)

    one.record_success(old, 0.1)

    assert one.state == "half_open"
    assert one.try_acquire() is None
    one.record_success(probe, 0.1)


def test_cancellations_never_open_it() -> None:
    one = breaker(Clock())

    for _ in range(100):
        one.release(admitted(one))

    assert one.state == "closed"


def test_slow_answers_open_it_too() -> None:
    one = breaker(Clock(), POLICY.model_copy(update={"slow_call": 2.0}))

    for _ in range(POLICY.min_calls):
        one.record_success(admitted(one), 2.1)

    assert one.state == "open"


def test_failures_are_forgotten_after_the_window() -> None:
    clock = Clock()
    one = breaker(clock)
    for _ in range(POLICY.min_calls - 1):
        one.record_failure(admitted(one))
    clock.now += POLICY.window + 1

    one.record_failure(admitted(one))

    assert one.state == "closed"


@pytest.mark.parametrize("share", [0.0, 0.49])
def test_fewer_failures_than_the_rate_leave_it_closed(share: float) -> None:
    one = breaker(Clock(), BreakerPolicy(min_calls=10))

    for n in range(100):
        bad = int(n * share) != int((n + 1) * share)
        permit = admitted(one)
        if bad:
            one.record_failure(permit)
        else:
            one.record_success(permit, 0.1)

    assert one.state == "closed"
