"""The real engine under pressure: too little memory, drafts that are wrong."""

import asyncio
from pathlib import Path

import pytest
from support.random_model import make_random
from support.random_requests import Json
from support.vllm_engine import Bare, Heard, counted, drafts_counted, engine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own: its engine lives in the tests' process here
]

REQUESTS = 16
LENGTH = 2048
LITTLE = 1.1 * LENGTH * 1024 / 2**30
"""The model of random weights needs 1 KiB a token."""


def story(seed: int) -> Json:
    """A short question with a long answer: many begin at once, and few have room to end."""
    schema = {
        "type": "object",
        "properties": {
            "favourite_colour": {"enum": ["blue", "green", "red"]},
            "story": {"type": "string", "minLength": 1000, "maxLength": 1200},
            "is_employed_at_present": {"type": "boolean"},
        },
        "required": ["favourite_colour", "story", "is_employed_at_present"],
    }
    return {
        "messages": [{"role": "user", "content": f"Invent person {seed}."}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": schema},
        },
        "temperature": 0,
        "max_tokens": 700,
    }


def preemptions() -> float:
    return counted("vllm:num_preemptions_total")


FORCED: Json = {
    "messages": [{"role": "user", "content": "Invent a person."}],
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "person",
            "schema": {
                "type": "object",
                "properties": {
                    "favourite_colour": {"enum": ["blue", "green", "red"]},
                    "is_employed_at_present": {"type": "boolean"},
                },
                "required": ["favourite_colour", "is_employed_at_present"],
            },
        },
    },
}
"""A reply that is forced but for two choices, and always ends by itself."""


async def drafted(bare: Bare) -> tuple[float, float]:
    """Return how many tokens were drafted and how many of them accepted."""
    before = drafts_counted()
    await bare.hear_all([{**FORCED, "seed": seed, "logprobs": True} for seed in range(20)])
    await bare.statistics()
    drafts, accepted = (now - was for now, was in zip(drafts_counted(), before, strict=True))
    return drafts, accepted


def test_preempted_requests_say_the_same_and_forced_runs_are_accepted_whole(
    smollm2: Path, tmp_path: Path
) -> None:
    """A preempted request's tokens are computed anew, and its automaton goes on where it was.

    Two engines, one without likely drafts and with memory enough, one the other way round.
    """
    model = make_random(tmp_path, smollm2)
    wishes = [story(seed) for seed in range(REQUESTS)]

    async def heard(
        kv_cache_gib: float, *, copy_drafts: bool
    ) -> tuple[list[list[Heard]], float, tuple[float, float]]:
        length = {"kv_cache_gib": kv_cache_gib, "max_model_len": LENGTH}
        async with engine(model, 16, **length, copy_drafts=copy_drafts) as bare:
            for each in wishes:
                await bare.turn(each)  # so that all come at once, none waiting for its schema
            before = preemptions()
            said = await bare.hear_all(wishes, at_once=REQUESTS)
            await bare.statistics()
            preempted = preemptions() - before
            return said, preempted, (0, 0) if copy_drafts else await drafted(bare)

    enough, none, (drafts, accepted) = asyncio.run(heard(0.1, copy_drafts=False))
    scarce, some, _ = asyncio.run(heard(LITTLE, copy_drafts=True))

    assert drafts == accepted > 100, "every token of a forced run is accepted"
    assert none == 0
    assert some > 0
    assert [one.text for (one,) in scarce] == [one.text for (one,) in enough]
    assert [one.finish for (one,) in scarce] == [one.finish for (one,) in enough]
