"""Reasoning: it goes back into the prompt, and is turned on and off as the family can."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import chat_templates

from falsework.grammars.call_formats import ReasoningTags
from falsework.grammars.events import Call
from falsework.prompts.detection import detect_renderer
from falsework.prompts.messages import Message
from falsework.prompts.reasoning_switches import separate_reasoning
from falsework.prompts.renderer import PromptRenderer, UnknownSwitch

HELLO = Message("user", "Hello")
CALL = Message(
    "assistant", calls=(Call("look", "{}"),), call_ids=("call_1",), reasoning="I should look."
)
RESULT = Message("tool", "seen", call_id="call_1")

# As Qwen3, GLM 4.5 and others read it: the reasoning of a past message is a member of its own.
WITH_REASONING = """\
{%- for message in messages %}{{ message.role }}:
{%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}
{{- message.content }}\n{% endfor %}
{%- if add_generation_prompt %}assistant:
{%- if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}
{%- endif %}"""
LEVELS = """\
{%- if reasoning_effort is not defined %}{% set reasoning_effort = "medium" %}{% endif %}
{{- "Reasoning: " + reasoning_effort }}
{%- for message in messages %}{{ message.content }}{% endfor %}"""
OWN_LEVELS = """\
{%- if reasoning_effort is defined and reasoning_effort == "max" %}Think hard.
{%- elif reasoning_effort == "none" %}Don't think.{% endif %}
{%- for message in messages %}{{ message.content }}{% endfor %}"""
ASKS_FOR_THOUGHTS = """\
{%- if thinking %}Write your thoughts.{% endif %}
{%- for message in messages %}{{ message.content }}{% endfor %}"""


@pytest.fixture(scope="module")
def renderer_of(smollm2: Path) -> Callable[..., PromptRenderer]:
    """Give the renderer of a template; `thinks`: the vocabulary has think blocks."""

    def made(template: str, *, thinks: bool = True) -> PromptRenderer:
        tokenizer: Any = copy.deepcopy(chat_templates.smollm2(smollm2, template))
        if thinks:
            tokenizer.add_tokens(["<think>", "</think>"])
        return detect_renderer(tokenizer)

    return made


def test_reasoning_of_past_messages_stands_before_their_calls(
    renderer_of: Callable[..., PromptRenderer],
) -> None:
    text = renderer_of(WITH_REASONING).render([HELLO, CALL, RESULT]).text

    assert "<think>I should look.</think><tool_call>" in text


def test_a_think_block_that_begins_a_past_text_is_its_reasoning(
    renderer_of: Callable[..., PromptRenderer],
) -> None:
    said = Message("assistant", "<think>\nHm. <b>\n</think>\n\nFine.")

    text = renderer_of(WITH_REASONING).render([HELLO, said, HELLO]).text

    assert "assistant:<think>Hm. <b></think>Fine.\n" in text


@pytest.mark.parametrize(
    "text", ["Close it with </think>.", "<think> opens it", "It says <think>x</think>."]
)
def test_an_answer_that_speaks_of_think_blocks_stays_an_answer(text: str) -> None:
    message = Message("assistant", text)

    assert separate_reasoning(message, ReasoningTags()) == message


def test_a_user_who_writes_a_think_block_writes_text(
    renderer_of: Callable[..., PromptRenderer],
) -> None:
    renderer = renderer_of(WITH_REASONING)

    prompt = renderer.render([Message("user", "<think>x</think>y")])

    assert "user:<think>x</think>y" in prompt.text
    assert not renderer.control_tokens.ids & set(prompt.tokens)


@pytest.mark.parametrize(("think", "end"), [(True, "assistant:"), (False, "</think>\n\n")])
def test_thinking_is_turned_off_by_the_templates_own_switch(
    think: bool, end: str, renderer_of: Callable[..., PromptRenderer]
) -> None:
    assert renderer_of(WITH_REASONING).render([HELLO], think=think).text.endswith(end)


def test_a_model_without_a_think_block_is_not_asked_to_think(
    renderer_of: Callable[..., PromptRenderer],
) -> None:
    text = renderer_of(ASKS_FOR_THOUGHTS, thinks=False).render([HELLO]).text

    assert text == "Hello"


@pytest.mark.parametrize(
    ("template", "effort", "said"),
    [
        (LEVELS, None, "Reasoning: medium"),
        (LEVELS, "minimal", "Reasoning: low"),
        (LEVELS, "high", "Reasoning: high"),
        (LEVELS, "max", "Reasoning: high"),
        (OWN_LEVELS, "max", "Think hard."),
        (OWN_LEVELS, "none", "Don't think."),
        (OWN_LEVELS, "high", "Hello"),
    ],
)
def test_effort_is_told_in_the_levels_that_the_template_knows(
    template: str, effort: str | None, said: str, renderer_of: Callable[..., PromptRenderer]
) -> None:
    assert renderer_of(template).render([HELLO], effort=effort).text.startswith(said)


def test_a_switch_that_a_client_sets_wins(renderer_of: Callable[..., PromptRenderer]) -> None:
    renderer = renderer_of(LEVELS)

    text = renderer.render([HELLO], effort="low", switches={"reasoning_effort": "high"}).text

    assert text.startswith("Reasoning: high")


@pytest.mark.parametrize("name", ["persona", "messages", "tools", "add_generation_prompt"])
def test_a_switch_that_the_template_does_not_read_is_refused_by_name(
    name: str, renderer_of: Callable[..., PromptRenderer]
) -> None:
    with pytest.raises(UnknownSwitch, match=f"'{name}'.*reads 'reasoning_effort'"):
        renderer_of(LEVELS).render([HELLO], switches={name: 1})


@pytest.mark.parametrize("messages", [[HELLO], [HELLO, CALL, RESULT]])
@pytest.mark.parametrize("think", [True, False])
def test_deepseek_r1_is_led_into_its_think_block_behind_results_too(
    think: bool, messages: list[Message]
) -> None:
    renderer = detect_renderer(chat_templates.deepseek(chat_templates.DEEPSEEK_R1))

    prompt = renderer.render(messages, think=think)

    assert prompt.thinking == think
    assert prompt.text.endswith("<think>\n" if think else "<think>\n</think>\n\n")
    assert prompt.text.count("<think>") == 1
