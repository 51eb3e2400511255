"""chat_template_kwargs: the switches of the model's chat template, as vLLM and SGLang name them."""

import asyncio
import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import chat_templates
from support.chat_bodies import asked, refusal

from falsework.prompts.detection import detect_renderer
from falsework.prompts.tokenizers import build_vocabulary
from falsework.server.errors import BadRequestError
from falsework.server.generation.turn import TurnBuilder

if TYPE_CHECKING:
    from falsework.server.generation.turn import PreparedTurn

SWITCHED = """\
{%- for message in messages %}{{ message.content }}{% endfor %}
{%- if persona is defined %}As {{ persona }}{% endif %}
{%- if thinking_budget is defined %}In {{ thinking_budget }} tokens{% endif %}
{%- if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"""


@pytest.fixture(scope="module")
def builder(smollm2: Path) -> TurnBuilder:
    tokenizer: Any = copy.deepcopy(chat_templates.smollm2(smollm2, SWITCHED))
    tokenizer.add_tokens(["<think>", "</think>"])
    renderer = detect_renderer(tokenizer)
    vocabulary = build_vocabulary(tokenizer, renderer.dialect.markers)
    return TurnBuilder(renderer, vocabulary, 4096, think_budget=64)


def text_of(builder: TurnBuilder, **fields: Any) -> str:
    return builder.lay_out(asked(**fields)).text


def test_a_switch_reaches_the_template(builder: TurnBuilder) -> None:
    text = text_of(builder, chat_template_kwargs={"persona": "a pirate"})

    assert text.startswith("helloAs a pirate")


def test_a_switch_that_the_template_does_not_read_is_refused_by_its_name(
    builder: TurnBuilder,
) -> None:
    with pytest.raises(BadRequestError, match="'clear_thinking'") as refused:
        text_of(builder, chat_template_kwargs={"clear_thinking": True})

    assert refused.value.param == "chat_template_kwargs.clear_thinking"


def test_a_budget_of_thoughts_reaches_a_template_that_takes_one(builder: TurnBuilder) -> None:
    assert "In 512 tokens" in text_of(builder, reasoning_effort="low")
    assert "tokens" not in text_of(builder)


def test_no_thinking_by_switch_is_no_thinking_in_the_constraint(builder: TurnBuilder) -> None:
    question = asked(chat_template_kwargs={"enable_thinking": False})

    turn: PreparedTurn = asyncio.run(builder.build(question))

    assert question.think_budget == 0
    assert turn.form.think is None
    assert text_of(builder, chat_template_kwargs={"enable_thinking": False}).endswith("</think>")


@pytest.mark.parametrize(
    ("effort", "thinking"), [("none", True), ("high", False), ("minimal", False)]
)
def test_two_fields_that_contradict_each_other_are_refused(effort: str, thinking: bool) -> None:
    switches = {"enable_thinking": thinking}

    assert (
        refusal(reasoning_effort=effort, chat_template_kwargs=switches).param
        == "chat_template_kwargs"
    )


@pytest.mark.parametrize("switches", [None, {}])
def test_no_switches_change_nothing(switches: Any) -> None:
    assert asked(chat_template_kwargs=switches) == asked()


@pytest.mark.parametrize("switches", [[], "x", 1])
def test_switches_that_are_no_object_are_refused(switches: Any) -> None:
    assert refusal(chat_template_kwargs=switches).param == "chat_template_kwargs"
