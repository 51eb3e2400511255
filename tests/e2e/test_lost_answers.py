"""Writes whose answers get lost in every way: none is done twice, and none is told wrongly."""

import pytest
from support.lost_answers import WAYS, written

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

RUNS = 2000
"""`bench/runtime.py` makes ten thousand."""


async def test_two_thousand_writes_with_lost_answers_are_never_doubled() -> None:
    ledger, told = await written(RUNS)

    assert len(told) == RUNS
    assert set(ledger.met) == set(WAYS), "answers get lost in every way"
    assert ledger.doubled() == []
    for effect, possible in {"applied": {1}, "not_applied": {0}, "unknown": {0, 1}}.items():
        mine = [number for number, outcome in told.items() if outcome.effect == effect]
        assert {ledger.done[number] for number in mine} <= possible
