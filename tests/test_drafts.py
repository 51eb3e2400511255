"""Drafts of forced text change how long a reply takes, and nothing else: on the real engine.

The model has random weights, so it wants to say anything.
"""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from drafting import Bare, Heard, broken, engine
from tiny import make_random
from wishes import Json, wish

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own: its engine lives in the tests' process here
]

GREEDY = 210
PERSON = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 8},
        "favourite_colour": {"enum": ["blue", "green", "red"]},
        "is_employed_at_present": {"type": "boolean"},
    },
    "required": ["first_name", "favourite_colour", "is_employed_at_present"],
}
ABOUT_A_PERSON: Json = {
    "messages": [{"role": "user", "content": "Invent a person."}],
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "person", "schema": PERSON},
    },
    "seed": 3,
}


@dataclass(frozen=True)
class Drafting:
    """An engine that drafts, and the loop in which it lives."""

    bare: Bare
    loop: asyncio.Runner

    def hear(self, **fields: object) -> list[Heard]:
        return self.loop.run(self.bare.hear({**ABOUT_A_PERSON, **fields}))


def greedy_wishes() -> list[Json]:
    kinds = ("auto", "required", "named", "allowed to call", "allowed and required")
    wishes = [wish(kind, seed).fields for seed in range(GREEDY // len(kinds)) for kind in kinds]
    return [{**fields, "temperature": 0, "max_tokens": 48} for fields in wishes]


@pytest.fixture(scope="module")
def random_model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random(tmp_path_factory.mktemp("random"), smollm2)


@pytest.fixture(scope="module")
def undrafted(random_model: Path) -> list[list[Heard]]:
    """What an engine says that decodes token by token."""

    async def heard() -> list[list[Heard]]:
        async with engine(random_model, draft_tokens=0) as bare:
            return await bare.hear_all(greedy_wishes())

    return asyncio.run(heard())


@pytest.fixture(scope="module")
def drafting(random_model: Path, undrafted: list[list[Heard]]) -> Iterator[Drafting]:
    del undrafted  # its engine has ended before this one starts
    with asyncio.Runner() as loop:
        opened = engine(random_model, draft_tokens=16)
        bare = loop.run(opened.__aenter__())
        yield Drafting(bare, loop)
        loop.run(opened.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def whole(drafting: Drafting) -> Heard:
    (heard,) = drafting.hear()
    return heard


def test_greedy_text_is_the_same_with_drafts_and_without(
    drafting: Drafting, undrafted: list[list[Heard]]
) -> None:
    """A token limit may come earlier or later in the text: tokenizations of forced text differ."""
    drafted = drafting.loop.run(drafting.bare.hear_all(greedy_wishes()))
    pairs = [(a.text, b.text) for (a,), (b,) in zip(undrafted, drafted, strict=True)]

    differing = [pair for pair in pairs if not (pair[0].startswith(pair[1][:40]))]

    assert len(pairs) >= 200
    assert differing == []


def test_forced_text_takes_fewer_steps_than_tokens(whole: Heard) -> None:
    assert whole.finish == "stop"
    assert json.loads(whole.text)
    assert whole.steps < whole.tokens / 2


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


def test_each_of_n_choices_goes_its_own_way(drafting: Drafting) -> None:
    heard = drafting.hear(n=5, temperature=1.3)

    assert len({one.text for one in heard}) > 1
    assert all(json.loads(one.text) for one in heard)


@pytest.mark.parametrize(
    "fields", [{"top_k": 5}, {"top_p": 0.5}, {"top_k": 3, "top_p": 0.9}, {"top_k": 2, "n": 2}]
)
def test_truncated_sampling_without_any_draft_leaves_the_engine_alive(
    drafting: Drafting, whole: Heard, fields: Json
) -> None:
    """vLLM verifies drafts in every step, those too in which there are none."""
    text = {"messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 12, **fields}

    free = drafting.loop.run(drafting.bare.hear(text))

    assert all(one.tokens > 0 for one in free)
    assert drafting.hear()[0].text == whole.text


def test_several_greedy_choices_are_the_greedy_one_each_time(
    drafting: Drafting,
) -> None:
    (alone,) = drafting.hear(temperature=0)

    together = drafting.hear(temperature=0, n=3)

    assert [one.text for one in together] == [alone.text] * 3


@pytest.mark.parametrize("limit", range(1, 24))
def test_a_token_limit_inside_a_draft_is_kept(drafting: Drafting, whole: Heard, limit: int) -> None:
    opening = drafting.loop.run(drafting.bare.turn(ABOUT_A_PERSON)).opening.tokens

    (heard,) = drafting.hear(max_tokens=limit)

    assert whole.text.startswith(heard.text)
    if heard.text != whole.text:
        assert heard.finish == "length"
        spent = heard.tokens + (len(opening) if limit > len(opening) else 0)
        assert spent == limit


def test_every_drafted_token_has_its_log_probability_once(drafting: Drafting) -> None:
    (heard,) = drafting.hear(logprobs=True, top_logprobs=2)
    said = [spelled for spelled, _ in heard.logprobs]

    assert len(said) == heard.tokens
    assert b"".join(said).removesuffix(b"<|im_end|>").decode() == heard.text
    assert all(math.isfinite(value) and value <= 0 for _, value in heard.logprobs)
    assert heard.steps < heard.tokens


def test_a_request_that_leaves_inside_a_draft_harms_nobody(
    drafting: Drafting, whole: Heard
) -> None:
    async def leave(after: int) -> None:
        turn = await drafting.bare.turn(ABOUT_A_PERSON)
        count = 0
        async for _ in drafting.bare.pieces(turn):
            count += 1
            if count > after:
                return

    async def leave_often() -> list[Heard]:
        leaving = (leave(number % 5) for number in range(20))
        (heard,), *_ = await asyncio.gather(drafting.bare.hear(ABOUT_A_PERSON), *leaving)
        return [heard]

    (beside,) = drafting.loop.run(leave_often())

    assert beside.text == whole.text
    assert drafting.hear()[0].text == whole.text


def test_biases_and_free_text_beside_drafts_leave_them_alone(
    drafting: Drafting, whole: Heard
) -> None:
    free = {"messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 40, "seed": 1}
    biased = {**free, "logit_bias": {"44": 100}, "min_p": 0.2, "presence_penalty": 1.5}

    (mixed,), (only_44,), *_ = drafting.loop.run(
        drafting.bare.hear_all([ABOUT_A_PERSON, biased, free, free])
    )

    assert mixed.text == whole.text
    assert set(only_44.text) == {"<"} or only_44.tokens == 40


def test_drafts_do_not_change_what_is_drawn_where_there_is_a_choice(drafting: Drafting) -> None:
    """Colours drawn behind a draft and drawn one by one from the same probabilities: chi-square."""
    schema = {"enum": ["blue", "green", "red"]}
    described = {
        "type": "object",
        "properties": {"favourite_colour_of_all": schema},
        "required": ["favourite_colour_of_all"],
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

    statistic = sum(
        (drafted[colour] - opened[colour]) ** 2 / (drafted[colour] + opened[colour])
        for colour in {*drafted, *opened}
    )
    assert len(drafted) > 1
    assert statistic < 13.8, "p < 0.001 with two degrees of freedom"


FAULTS = {
    "cut short": {"automaton": b"\x01\x02\x03"},
    "empty": {"automaton": b""},
    "a start that is not there": {"start": 10**6},
    "bytes that are no automaton": {"automaton": b"\xff" * 4000},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_constraint_that_fails_ends_its_own_request_and_nobody_elses(
    drafting: Drafting, whole: Heard, fault: str
) -> None:
    async def both() -> tuple[list[str | None], list[Heard]]:
        turn = await drafting.bare.turn(ABOUT_A_PERSON)
        assert turn.constraint is not None
        constraint = broken(turn.constraint, **FAULTS[fault])

        async def fail() -> list[str | None]:
            return [piece.finish async for piece in drafting.bare.pieces(turn, constraint)]

        return await asyncio.gather(fail(), drafting.bare.hear(ABOUT_A_PERSON))

    ends, (beside,) = drafting.loop.run(both())

    assert ends[-1] == "error"
    assert beside.text == whole.text
