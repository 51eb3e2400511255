"""Numbers at and beyond what the engine can take: on the real engine, which has to outlive them."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from support.random_model import make_random
from support.random_sampling import VOCABULARY, random_sampling
from support.vllm_engine import ABOUT_A_PERSON, Drafting, drafting_on

from falsework.server.engines.base import SamplingParams
from falsework.server.errors import BadRequestError

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own: its engine lives in the tests' process here
]

REQUESTS = 100


@pytest.fixture(scope="module")
def drafting(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drafting]:
    with drafting_on(make_random(tmp_path_factory.mktemp("random"), smollm2)) as made:
        yield made


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {str(VOCABULARY): 1}}, "logit_bias"),
        ({"logit_bias": {"0": 1, str(2**63): 1}}, "logit_bias"),
        ({"repetition_penalty": 1e-30}, "repetition_penalty"),
    ],
)
def test_a_number_that_the_model_cannot_take_is_refused_by_its_field(
    drafting: Drafting, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        drafting.hear(**fields)

    assert refused.value.param == param
    assert drafting.hear()[0].finish == "stop"


@pytest.mark.parametrize("temperature", [0, 1e-300, 9e-6])
def test_several_choices_at_next_to_no_temperature_are_the_greedy_one(
    drafting: Drafting, temperature: float
) -> None:
    (greedy,) = drafting.hear(temperature=0)

    choices = drafting.hear(temperature=temperature, n=2)

    assert [choice.text for choice in choices] == [greedy.text] * 2


@pytest.mark.parametrize("constrained", [True, False])
def test_a_bias_that_passes_every_check_ends_its_own_request_and_nobody_elses(
    drafting: Drafting, monkeypatch: pytest.MonkeyPatch, constrained: bool
) -> None:
    """As if a check in front of the engine were missing."""
    check = "falsework.server.engines.vllm.engine.fit_to_engine"
    monkeypatch.setattr(check, lambda sampling, _: sampling)

    async def both() -> tuple[list[str | None], str]:
        turn = await drafting.bare.turn(ABOUT_A_PERSON)
        sampling = SamplingParams(8, logit_bias={VOCABULARY: 1.0})
        constraint = turn.constraint if constrained else None
        stream = drafting.bare.engine.generate(turn.prompt, sampling, constraint, uuid4().hex)

        async def ends() -> list[str | None]:
            return [delta.finish async for delta in stream]

        ended, (beside,) = await asyncio.gather(ends(), drafting.bare.hear(ABOUT_A_PERSON))
        return ended, beside.finish or ""

    ended, beside = drafting.loop.run(both())

    assert ended[-1] == "error"
    assert beside == "stop"


def test_no_random_sampling_ends_the_engine(drafting: Drafting) -> None:
    draw = random.Random(5)
    seats = asyncio.Semaphore(8)
    ends: Counter[str] = Counter()

    async def send(fields: dict[str, Any]) -> None:
        async with seats:
            try:
                heard = await drafting.bare.hear(fields)
            except BadRequestError as refused:
                ends["refused" if refused.param else str(refused)] += 1
            else:
                assert all(math.isfinite(value) for one in heard for _, value in one.logprobs)
                ends["answered"] += 1

    async def send_all() -> None:
        await asyncio.gather(*(send(random_sampling(draw)) for _ in range(REQUESTS)))
        await drafting.bare.engine.check_health()

    drafting.loop.run(send_all())

    assert ends["answered"] + ends["refused"] == REQUESTS
    assert min(ends["answered"], ends["refused"]) > REQUESTS / 5
