"""The real engine under pressure: too little memory, drafts that are wrong, stops within drafts."""

import asyncio
from pathlib import Path

import pytest
from drafting import Heard, engine
from prometheus_client import REGISTRY
from tiny import make_random
from wishes import Json, wish

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own: its engine lives in the tests' process here
]

REQUESTS = 16
LENGTH = 2048
LITTLE = 1.1 * LENGTH * 1024 / 2**30
"""The model of random weights needs 1 KiB a token."""


def greedy(seed: int) -> Json:
    return {**wish("required", seed).fields, "temperature": 0, "max_tokens": 160, "min_p": 0}


def preemptions() -> float:
    samples = [
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "vllm:num_preemptions_total"
    ]
    return sum(samples)


def test_requests_that_are_preempted_say_what_they_say_with_memory_enough(
    smollm2: Path, tmp_path: Path
) -> None:
    """A preempted request's tokens are computed anew, and its automaton goes on where it was."""
    model = make_random(tmp_path, smollm2)
    wishes = [greedy(seed) for seed in range(REQUESTS)]

    async def heard(kv_cache_gib: float) -> tuple[list[list[Heard]], float]:
        async with engine(model, 16, kv_cache_gib=kv_cache_gib, max_model_len=LENGTH) as bare:
            before = preemptions()
            said = await bare.hear_all(wishes, at_once=REQUESTS)
            return said, preemptions() - before

    enough, none = asyncio.run(heard(0.1))
    scarce, some = asyncio.run(heard(LITTLE))

    assert none == 0
    assert some > 0
    assert [one.text for (one,) in scarce] == [one.text for (one,) in enough]
    assert [one.finish for (one,) in scarce] == [one.finish for (one,) in enough]
