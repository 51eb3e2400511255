"""Decisions between a call and none: by summed probability, biased, at any temperature."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.chat_bodies import tool
from support.vllm_engine import Drafting, drafting_on

from falsework.server.engines.vllm.call_decisions import RowDecision, apply_decisions, decide

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # vLLM's own: its engine lives in the tests' process here
    pytest.mark.timeout(300),
]

LOGITS = [2.0, 1.9, 1.9, 1.8, -math.inf, 0.5]
CALLS, UNCLEAR = (0, 4), (5,)


def probabilities(temperature: float, bias: float = 0.0) -> list[float]:
    logits = torch.tensor(LOGITS)
    decide(logits, RowDecision(CALLS, UNCLEAR, bias, temperature))
    if temperature == 0:
        return [float(one == logits.max()) for one in logits]
    return (logits / temperature).softmax(-1).tolist()  # type: ignore[no-any-return]


def model(tokens: Sequence[int]) -> float:
    return sum(math.exp(LOGITS[token]) for token in tokens)


def test_without_bias_at_temperature_1_nothing_changes() -> None:
    expected = torch.tensor(LOGITS).softmax(-1).tolist()

    assert probabilities(1.0) == pytest.approx(expected, abs=1e-6)


def test_greedy_takes_the_way_that_is_likelier_as_a_whole() -> None:
    assert probabilities(0) == [0, 1, 1, 0, 0, 0], "the likeliest token alone begins a call"


def test_greedy_with_a_bias_takes_the_other_way() -> None:
    assert probabilities(0, bias=2.0) == [1, 0, 0, 0, 0, 0]
    assert probabilities(0, bias=-2.0) == [0, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.6])
@pytest.mark.parametrize("bias", [-1.5, 0.0, 2.0])
def test_each_way_gets_its_odds_and_tokens_keep_theirs(temperature: float, bias: float) -> None:
    likely = probabilities(temperature, bias)
    text = (1, 2, 3)

    odds = likely[0] / sum(likely[token] for token in text)
    wanted = (model((0,)) * math.exp(bias) / model(text)) ** (1 / temperature)

    assert odds == pytest.approx(wanted, rel=1e-4)
    assert likely[1] / likely[3] == pytest.approx(math.exp(0.1 / temperature), rel=1e-4)
    assert likely[4] == 0


def test_a_way_that_cannot_be_gone_changes_nothing() -> None:
    logits = torch.tensor([-math.inf, 1.0, 0.5])

    decide(logits, RowDecision((0,), (), 5.0, 0.0))

    assert logits.isneginf().tolist() == [True, False, False]
    assert int(logits.argmax()) == 1


def test_decisions_are_made_in_the_rows_of_their_requests_and_drafts() -> None:
    """The batch has its own order, and a request has a row for each draft and one behind them."""
    batch = SimpleNamespace(req_ids=["plain", "b", "a"])
    step = SimpleNamespace(scheduled_spec_decode_tokens={"a": [7, 7], "plain": [7]})
    masks = SimpleNamespace(structured_output_request_ids=["a", "b"])
    logits = torch.zeros(6, 3)  # plain, its draft, b, a, and a's two drafts
    call = RowDecision((0,), (), 5.0, 1.0)

    apply_decisions({1: call, 3: call}, step, masks, batch, logits)  # a's first draft, and b

    assert logits[:, 0].tolist() == [0, 0, 5, 0, 5, 0]
    assert logits[:, 1:].abs().max() == 0


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = tool("get_weather", description="The weather in a city now.", parameters=CITY)
ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "tools": [WEATHER],
    "response_format": {"type": "text"},
    "max_tokens": 60,
}


@pytest.fixture(scope="module")
def drafting(smollm2: Path) -> Iterator[Drafting]:
    with drafting_on(smollm2) as opened:
        yield opened


@pytest.mark.engine
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_request_can_make_calls_more_or_less_likely(
    drafting: Drafting, temperature: float
) -> None:
    def first(bias: float) -> str:
        (said,) = drafting.hear(**ASKED, temperature=temperature, tool_call_bias=bias)
        return said.text

    assert first(50.0).lstrip("`<{").startswith(("tool_call", "json", '"'))
    assert first(-50.0)[0] not in "<`{"


@pytest.mark.engine
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("bias", "several"), [(50.0, True), (-50.0, False)])
def test_another_call_is_weighed_behind_each_call(
    drafting: Drafting, temperature: float, bias: float, *, several: bool
) -> None:
    builder = drafting.bare.scaffold
    profile, builder.profile = builder.profile, type(builder.profile)(another_call_bias=bias)

    try:
        fields = {"tool_choice": "required", "temperature": temperature}
        (said,) = drafting.hear(**ASKED, **fields)
    finally:
        builder.profile = profile

    assert (said.text.count("<tool_call>") > 1) is several
    assert said.finish == ("length" if several else "stop")
