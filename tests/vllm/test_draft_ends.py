"""Replies that end, leave or fail in the middle of drafts: on the real engine.

The model has random weights, so it wants to say anything.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.random_model import make_random
from support.random_requests import Json
from support.vllm_engine import ABOUT_A_PERSON, Drafting, Heard, broken, drafting_on

from falsework.grammars.events import Text
from falsework.server.engines.base import ThinkingBudget

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own: its engine lives in the tests' process here
]


@pytest.fixture(scope="module")
def drafting(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drafting]:
    with drafting_on(make_random(tmp_path_factory.mktemp("random"), smollm2)) as made:
        yield made


@pytest.fixture(scope="module")
def whole(drafting: Drafting) -> Heard:
    (heard,) = drafting.hear()
    return heard


def test_forced_text_takes_fewer_steps_than_tokens(whole: Heard) -> None:
    assert whole.finish == "stop"
    assert json.loads(whole.text)
    assert whole.steps < whole.tokens / 2


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


@pytest.mark.parametrize("stop", ["colour", "_em", "at_present", '", "', "blue", "red", "green"])
def test_a_stop_string_inside_a_draft_ends_text_and_log_probabilities(
    drafting: Drafting, stop: str
) -> None:
    fields = {"temperature": 0, "logprobs": True, "top_logprobs": 0}
    (whole,) = drafting.hear(**fields)

    told = drafting.loop.run(drafting.bare.steps({**ABOUT_A_PERSON, **fields}, stop))

    text = "".join(event.text for step in told for event in step.events if isinstance(event, Text))
    logged = b"".join(one.bytes for step in told for one in step.logprobs).decode()
    assert text == whole.text.partition(stop)[0]
    assert told[-1].finish == "stop"
    assert logged.removesuffix("<|im_end|>").startswith(text.rpartition('"')[0])
    assert len(logged.removesuffix("<|im_end|>")) < len(text) + len(stop)


FAULTS = {
    "cut short": {"grammar": b"\x01\x02\x03"},
    "empty": {"grammar": b""},
    "a start that is not there": {"prefix": (10**6,)},
    "bytes that are no automaton": {"grammar": b"\xff" * 4000},
    "a prefix that is no number": {"prefix": ("here",)},
    "a mask that can't be made": {"think": ThinkingBudget(0, 1, (10**9,)), "prefix": ()},
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


def test_a_grammar_that_the_engine_has_is_named_by_its_key(
    drafting: Drafting, whole: Heard
) -> None:
    async def say(grammar: bytes) -> str:
        turn = await drafting.bare.turn(ABOUT_A_PERSON)
        assert turn.constraint is not None
        known = replace(turn.constraint, grammar=grammar)
        pieces = [piece.text async for piece in drafting.bare.pieces(turn, known)]
        return turn.opening.text + "".join(pieces)

    assert drafting.loop.run(say(b"never looked at")) == whole.text


def test_a_grammar_that_the_engine_has_forgotten_is_sent_again(drafting: Drafting) -> None:
    async def both() -> list[list[str | None]]:
        turn = await drafting.bare.turn({**ABOUT_A_PERSON, "seed": 5})
        assert turn.constraint is not None
        forgotten = broken(turn.constraint)
        engine = drafting.bare.engine._engine  # type: ignore[attr-defined]
        engine._grammars.add(forgotten.key)
        return [
            [piece.finish async for piece in drafting.bare.pieces(turn, forgotten)]
            for _ in range(2)
        ]

    first, second = drafting.loop.run(both())

    assert first == second
    assert first[-1] in {"stop", "length"}
