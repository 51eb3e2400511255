"""Threads spin while the cores are theirs, and sleep while others want them."""

import pytest

from falsework.server.engines.vllm.wait_policy import SLEEP, SPIN, WaitPolicy, wait_policy


class Machine:
    """Steps of a model on a machine, with a clock of their own."""

    def __init__(self) -> None:
        self.now = self.delayed = 0.0
        self.chosen: list[int] = []
        self.policy = WaitPolicy(self.chosen.append, lambda: self.delayed, lambda: self.now)

    def run(self, seconds: float, share: float, step: float = 0.02) -> list[int]:
        """Run steps that wait for a core for a share of their time; return what was chosen."""
        before = len(self.chosen)
        for _ in range(round(seconds / step)):
            with self.policy.step():
                self.now += step
                self.delayed += share * step
            self.now += 0.5  # between steps nothing is measured
        return self.chosen[before:]


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_threads_sleep_until_the_machine_was_calm_for_a_while(machine: Machine) -> None:
    assert machine.chosen == [SLEEP]
    assert machine.run(0.9, 0.003) == []
    assert machine.run(0.3, 0.003) == [SPIN]


def test_threads_go_to_sleep_as_soon_as_others_take_a_core(machine: Machine) -> None:
    machine.run(2, 0)

    assert machine.run(0.12, 0.6) == [SLEEP]


def test_one_long_step_in_a_crowd_is_enough(machine: Machine) -> None:
    machine.run(2, 0)

    assert machine.run(5, 0.98, step=5) == [SLEEP]


def test_threads_stay_asleep_beside_one_busy_process(machine: Machine) -> None:
    assert machine.run(60, 0.12) == []


def test_the_servers_own_work_between_steps_does_not_send_threads_to_sleep(
    machine: Machine,
) -> None:
    machine.run(2, 0)

    assert machine.run(60, 0.08) == []


def test_calm_is_counted_anew_after_each_disturbance(machine: Machine) -> None:
    for _ in range(10):
        assert machine.run(0.8, 0) == []
        assert machine.run(0.1, 0.12) == []


def test_an_operator_who_chose_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMP_BLOCKTIME", "5")

    assert wait_policy() is None


def test_without_intels_runtime_there_is_nothing_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)

    assert wait_policy() is None
