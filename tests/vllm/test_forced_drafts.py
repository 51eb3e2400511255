"""Drafts of forced text change how long a reply takes, and nothing else: on the real engine.

The model has random weights, so it wants to say anything.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.random_model import make_random
from support.random_requests import Json, wish
from support.vllm_engine import (
    ABOUT_A_PERSON,
    Bare,
    Drafting,
    Heard,
    drafting_on,
    drafts_counted,
    engine,
)

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own: its engine lives in the tests' process here
]

GREEDY = 210
LOGGED: Json = {**ABOUT_A_PERSON, "temperature": 0, "logprobs": True, "top_logprobs": 2}
DRAWN = 300
REPETITIVE: Json = {
    "messages": [{"role": "user", "content": "Toss a coin, again and again."}],
    "max_tokens": 128,
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "coins",
            "schema": {
                "type": "array",
                "items": {"enum": ["heads", "tails"]},
                "minItems": 8,
                "maxItems": 8,
            },
        },
    },
}
"""A reply that repeats itself all the time, so that likely text is drafted, rightly or wrongly."""


async def drawn(bare: Bare, seeds: range) -> Counter[tuple[str, ...]]:
    """Return how often two of the later tosses came out how."""
    heard = await bare.hear_all([{**REPETITIVE, "seed": seed} for seed in seeds])
    return Counter(tuple(json.loads(one.text)[5:7]) for (one,) in heard)


def chi_square(one: Counter[Any], other: Counter[Any]) -> float:
    """Return how far two samples of one size are apart; its freedom is the kinds less one."""
    kinds = {*one, *other}
    return sum((one[kind] - other[kind]) ** 2 / (one[kind] + other[kind]) for kind in kinds)


def greedy_wishes() -> list[Json]:
    """Calls of every kind and objects; half of them unbiased, so that likely text is drafted."""
    kinds = ("auto", "required", "named", "allowed to call", "allowed and required")
    seeds = range(GREEDY // len(kinds))
    called = [wish(kind, seed).fields for seed in seeds for kind in kinds]
    unbiased = [{**fields, "logit_bias": None} for fields in called[::2]]
    objects = [
        {**ABOUT_A_PERSON, "messages": [{"role": "user", "content": f"Invent person {number}."}]}
        for number in range(20)
    ]
    wishes = [*called[1::2], *unbiased, *objects]
    return [{**fields, "temperature": 0, "max_tokens": 96} for fields in wishes]


@pytest.fixture(scope="module")
def random_model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random(tmp_path_factory.mktemp("random"), smollm2)


@dataclass(frozen=True)
class Undrafted:
    """What an engine says that decodes token by token."""

    greedy: list[list[Heard]]
    with_logprobs: Heard
    drawn: Counter[tuple[str, ...]]


@pytest.fixture(scope="module")
def undrafted(random_model: Path) -> Undrafted:
    async def heard() -> Undrafted:
        async with engine(random_model, draft_tokens=0) as bare:
            greedy = await bare.hear_all(greedy_wishes())
            (alone,) = await bare.hear(LOGGED)
            return Undrafted(greedy, alone, await drawn(bare, range(DRAWN)))

    return asyncio.run(heard())


@pytest.fixture(scope="module")
def drafting(random_model: Path, undrafted: Undrafted) -> Iterator[Drafting]:
    del undrafted  # its engine has ended before this one starts
    with drafting_on(random_model) as made:
        yield made


@pytest.fixture(scope="module")
def whole(drafting: Drafting) -> Heard:
    (heard,) = drafting.hear()
    return heard


def test_greedy_text_is_the_same_with_drafts_and_without(
    drafting: Drafting, undrafted: Undrafted
) -> None:
    drafted = drafting.loop.run(drafting.bare.hear_all(greedy_wishes()))
    pairs = [(a, b) for (a,), (b,) in zip(undrafted.greedy, drafted, strict=True)]

    differing = [(a.text, b.text) for a, b in pairs if (a.text, a.finish) != (b.text, b.finish)]

    assert len(pairs) >= 200
    assert sum(b.steps for _, b in pairs) < 0.8 * sum(a.steps for a, _ in pairs)
    assert differing == []


def test_a_request_is_answered_alike_from_the_prefix_cache(
    drafting: Drafting, whole: Heard
) -> None:
    """Prompts of every length near a block of the cache, one token left to compute among them."""
    longer = "Say something about it. " * 40
    asked = [
        {"messages": [{"role": "user", "content": longer + "a " * count}]}
        for count in range(0, 140, 7)
    ]

    first = [drafting.hear(**fields) for fields in asked]
    again = [drafting.hear(**fields) for fields in asked]

    assert [a.text for (a,) in first] == [b.text for (b,) in again]
    assert all(heard.cached > 0 for (heard,) in again)
    assert whole.text == drafting.hear()[0].text


def test_prompts_prefilled_in_chunks_beside_drafts_are_answered_as_alone(
    drafting: Drafting,
) -> None:
    """Each prompt is longer than what the scheduler takes in one step (2,048 tokens)."""
    wishes = [
        {**ABOUT_A_PERSON, "messages": [{"role": "user", "content": f"{n} " + "yes " * 2600}]}
        for n in range(3)
    ]

    together = drafting.loop.run(drafting.bare.hear_all([*wishes, ABOUT_A_PERSON]))
    alone = [drafting.loop.run(drafting.bare.hear(fields)) for fields in [*wishes, ABOUT_A_PERSON]]

    assert [heard.text for (heard,) in together] == [heard.text for (heard,) in alone]


def test_every_drafted_token_has_its_log_probability_once(
    drafting: Drafting, undrafted: Undrafted
) -> None:
    (heard,) = drafting.hear(**LOGGED)
    said = [spelled for spelled, _ in heard.logprobs]

    assert len(said) == heard.tokens
    assert b"".join(said).removesuffix(b"<|im_end|>").decode() == heard.text
    assert heard.steps < heard.tokens
    assert said == [spelled for spelled, _ in undrafted.with_logprobs.logprobs]
    values = [value for _, value in undrafted.with_logprobs.logprobs]
    assert [value for _, value in heard.logprobs] == pytest.approx(values, abs=1e-3)


def test_forced_drafts_do_not_change_what_is_drawn_behind_them(drafting: Drafting) -> None:
    """Colours drawn behind a draft and drawn one by one from the same probabilities."""
    described = {
        "type": "object",
        "properties": {"favourite_colour_of_all": {"enum": ["blue", "green", "red"]}},
        "required": ["favourite_colour_of_all"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": described}}

    def colours(seeds: range, **fields: object) -> Counter[str]:
        wishes = [
            {**ABOUT_A_PERSON, "response_format": form, "seed": seed, **fields} for seed in seeds
        ]
        heard = drafting.loop.run(drafting.bare.hear_all(wishes))
        return Counter(json.loads(one.text)["favourite_colour_of_all"] for (one,) in heard)

    # With logprobs nothing is put to the prompt, so the run before the colour is drafted.
    drafted = colours(range(300), logprobs=True)
    opened = colours(range(1000, 1300))

    assert len(drafted) > 1
    assert chi_square(drafted, opened) < 13.8, "p < 0.001 with two degrees of freedom"


def test_likely_drafts_do_not_change_what_is_drawn_where_there_is_a_choice(
    drafting: Drafting, undrafted: Undrafted
) -> None:
    before = drafts_counted()

    drafted = drafting.loop.run(drawn(drafting.bare, range(1000, 1000 + DRAWN)))

    drafting.loop.run(drafting.bare.statistics())
    proposed, accepted = (now - was for now, was in zip(drafts_counted(), before, strict=True))
    assert proposed > accepted + 100, "some were wrong"
    assert accepted > 100
    assert len(drafted) > 2
    assert chi_square(drafted, undrafted.drawn) < 16.3, "p < 0.001 with three degrees of freedom"
