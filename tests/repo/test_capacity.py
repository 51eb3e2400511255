"""The simulation of many replicas: what it must show whatever the numbers are."""

import pytest

pytest.importorskip("simpy", reason="SimPy isn't installed here")

from falsework.bench.capacity import ROUTINGS, Chain, Cluster, Figures, Replica, most
from falsework.bench.capacity_outage import outage
from falsework.bench.capacity_report import tables

STEADY = Replica(mtbf=1e12)
CHAIN = Chain()


def figures(count: int, routing: str, share: float, replica: Replica = STEADY) -> Figures:
    rate = share * count * most(replica, CHAIN)
    return Cluster(count, routing, replica, CHAIN, seed=1).run(rate, 60)


def test_a_chain_on_an_idle_replica_takes_what_its_parts_take() -> None:
    prefilled = (CHAIN.opening + (CHAIN.turns - 1) * CHAIN.growth) / STEADY.prefill
    decoded = CHAIN.turns * CHAIN.call / STEADY.decode
    tools = CHAIN.turns * CHAIN.tool_seconds

    assert figures(1, "session", 0.02).p50 == pytest.approx(prefilled + decoded + tools, rel=0.2)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_one_replica_finds_every_prefix_whatever_the_routing(routing: str) -> None:
    assert figures(1, routing, 0.3).hits == 1


def test_random_routing_finds_a_prefix_as_often_as_it_meets_the_replica() -> None:
    assert figures(2, "random", 0.2).hits == pytest.approx(0.6, abs=0.15)
    assert figures(16, "random", 0.1).hits < 0.2


def test_sessions_stay_where_their_prefix_is() -> None:
    assert figures(16, "session", 0.5).hits > 0.95


def test_chains_of_a_replica_that_fails_are_made_again_elsewhere() -> None:
    failing = Replica(mtbf=100, load_seconds=20)

    made = figures(4, "session", 0.2, failing)

    assert made.retried > 0
    assert made.hits < 1


def test_the_same_seed_is_the_same_run() -> None:
    assert figures(4, "session", 0.4) == figures(4, "session", 0.4)


def test_an_upstream_that_is_down_gets_more_attempts_from_more_breakers() -> None:
    few, many = outage(1, 16), outage(64, 16)

    assert few.reached < 0.3
    assert many.reached > few.reached


def test_a_load_that_no_breaker_sees_ten_calls_of_is_not_held_off() -> None:
    """Ten calls within thirty seconds are what opens one."""
    rare = outage(64, 4)

    assert rare.reached > 0.5


def test_the_tables_have_a_row_for_each_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falsework.bench.capacity_report.COUNTS", (1, 2))
    monkeypatch.setattr("falsework.bench.capacity_report.LOADS", (0.1,))
    monkeypatch.setattr("falsework.bench.capacity_report.MIDDLE", 2)
    monkeypatch.setattr("falsework.bench.capacity_report.CALLS", 2.0)

    made = tables(STEADY, CHAIN, 60)

    rows = [line for line in made.text.splitlines() if line.startswith("| ")]
    assert len(rows) == 3 + 2 * len(ROUTINGS) + len(ROUTINGS) + 2
