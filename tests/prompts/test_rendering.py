"""Which dialect a model speaks, and how conversations are laid out for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import chat_templates

from falsework.grammars import json_values
from falsework.grammars.events import Call, Tool
from falsework.prompts.detection import UnknownDialect, detect_renderer
from falsework.prompts.dialects import DIALECTS
from falsework.prompts.messages import Message
from falsework.prompts.renderer import ChatTemplateError, PromptRenderer

LOOK = Tool("look", "Looks somewhere.", {"properties": {"at": {"type": "string"}}})
RING = Tool("ring", "Rings.", {})
HELLO = Message("user", "Hello")
TWO = Message(
    "assistant",
    calls=(Call("look", '{"at": "é \\"x\\""}'), Call("ring", '{"times": 2}')),
    call_ids=("a", "b"),
)
RESULTS = (Message("tool", "result of b", call_id="b"), Message("tool", "result of a", call_id="a"))

SHAPES = {
    "llama3": chat_templates.LLAMA3,
    "llama_pythonic": chat_templates.PYTHONIC,
    "hermes": chat_templates.HERMES,
    "deepseek_r1": chat_templates.DEEPSEEK_R1,
}
NO_OBJECTS = ['{"at": ', "", "[1]"]
UNTIDY = '{"at":"\\u00e9",\n\n"at": 1.0}'
SAID = [(name, said) for name in [*SHAPES, "scaffold"] for said in NO_OBJECTS] + [
    # Other templates take arguments as objects, and write them themselves.
    (name, UNTIDY)
    for name in ("deepseek_r1", "scaffold")
]


@pytest.fixture(scope="module")
def speaker(smollm2: Path) -> Callable[[str], Any]:
    """Give the tokenizer of a model that speaks a dialect."""

    def made(dialect: str) -> Any:
        if dialect == "deepseek_r1":
            return chat_templates.deepseek(SHAPES[dialect])
        return chat_templates.smollm2(smollm2, SHAPES.get(dialect))

    return made


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> PromptRenderer:
    return detect_renderer(chat_templates.smollm2(smollm2))


@pytest.fixture(scope="module")
def thinker() -> PromptRenderer:
    return detect_renderer(chat_templates.deepseek(chat_templates.THINKER))


def test_the_built_in_models_template_knows_no_tools(scaffold: PromptRenderer) -> None:
    assert scaffold.dialect.name == "scaffold"
    assert not scaffold.knows_tools
    assert scaffold.dialect.think is None


@pytest.mark.parametrize("name", SHAPES)
def test_a_family_is_known_by_its_template(name: str, speaker: Callable[[str], Any]) -> None:
    prompter = detect_renderer(speaker(name))

    assert prompter.dialect.name == name
    assert prompter.knows_tools == (name != "deepseek_r1")


def test_a_template_whose_markers_are_no_tokens_is_not_its_family(smollm2: Path) -> None:
    prompter = detect_renderer(chat_templates.smollm2(smollm2, chat_templates.DEEPSEEK_R1))

    assert prompter.dialect.name == "scaffold"


def test_a_named_dialect_wins_and_brings_its_own_tool_section(smollm2: Path) -> None:
    prompter = detect_renderer(chat_templates.smollm2(smollm2, chat_templates.HERMES), "llama3")

    assert prompter.dialect.name == "llama3"
    assert "<functions>" in prompter.render([HELLO], [LOOK]).text


def test_an_unknown_dialect_is_refused_with_the_list_of_what_there_is(smollm2: Path) -> None:
    with pytest.raises(UnknownDialect) as refused:
        detect_renderer(chat_templates.smollm2(smollm2), "klingon")

    assert "klingon" in str(refused.value)
    for name in ("auto", *DIALECTS):
        assert name in str(refused.value)


@pytest.mark.parametrize("name", SHAPES)
def test_past_calls_stand_in_the_prompt_as_the_family_spells_them(
    name: str, speaker: Callable[[str], Any]
) -> None:
    prompter = detect_renderer(speaker(name))
    messages = [HELLO, TWO, *RESULTS]

    text = prompter.render(messages, [LOOK, RING]).text

    alone = [[call] for call in TWO.calls] if prompter.dialect.one_call_a_message else [TWO.calls]
    for calls in alone:
        assert prompter.dialect.markup.render(calls) in text
    assert "result of a" in text
    assert "result of b" in text


@pytest.mark.parametrize("name", DIALECTS)
def test_the_tool_section_shows_the_spelling_that_the_constraint_expects(
    name: str, smollm2: Path
) -> None:
    prompter = detect_renderer(chat_templates.smollm2(smollm2), name)

    alone = prompter.render([HELLO], [LOOK, RING], parallel=False).text
    several = prompter.render([HELLO], [LOOK, RING]).text

    shown = [Call("first_function", '{"argument": "value"}'), Call("second_function", "{}")]
    assert prompter.dialect.markup.render(shown[:1]) in alone
    assert prompter.dialect.markup.render(shown) not in alone
    assert prompter.dialect.markup.render(shown) in several
    for tool in (LOOK, RING):
        described = {"name": tool.name, "description": tool.description}
        assert json_values.dumps(described)[:-1] in several


def test_without_tools_there_is_no_tool_section(scaffold: PromptRenderer) -> None:
    assert "functions" not in scaffold.render([HELLO]).text


def test_a_template_that_knows_tools_is_given_them(speaker: Callable[[str], Any]) -> None:
    text = detect_renderer(speaker("hermes")).render([HELLO], [LOOK]).text

    assert '"name": "look"' in text
    assert "<functions>" not in text


def test_the_tokens_are_those_of_the_text_and_nothing_is_put_before(
    scaffold: PromptRenderer,
) -> None:
    prompt = scaffold.render([HELLO])

    tokens = scaffold.tokenizer.encode(prompt.text, add_special_tokens=False)
    assert list(prompt.tokens) == tokens


def test_the_system_messages_at_the_head_and_the_tools_become_one_system_message(
    scaffold: PromptRenderer,
) -> None:
    messages = [Message("system", "Be brief."), Message("system", "Be kind."), HELLO]

    text = scaffold.render(messages, [LOOK]).text

    assert text.count("<|im_start|>system") == 1
    assert text.startswith("<|im_start|>system\nBe brief.\n\nBe kind.\n\nYou can call")


def test_a_later_system_message_leaves_the_prompt_before_it_as_it_was(
    scaffold: PromptRenderer,
) -> None:
    reminder = Message("system", "Be kind.")
    answered = [Message("system", "Be brief."), HELLO, Message("assistant", "Hi.")]

    before = scaffold.render([*answered, HELLO], [LOOK]).text
    after = scaffold.render([*answered, reminder, HELLO], [LOOK]).text

    shared = before[: before.rindex("<|im_start|>user")]
    assert after.startswith(shared)
    assert after.index("Be kind.") > len(shared)


@pytest.mark.parametrize(("name", "said"), SAID)
def test_past_arguments_are_told_as_they_were_said_even_if_they_are_no_json(
    name: str, said: str, speaker: Callable[[str], Any]
) -> None:
    prompter = detect_renderer(speaker(name))
    past = Message("assistant", calls=(Call("look", said),), call_ids=("a",))

    text = prompter.render([HELLO, past, Message("tool", "seen", call_id="a")], [LOOK]).text

    markup = prompter.dialect.markup
    assert f"look{markup.after_name}{said}{markup.after_arguments}" in text


def places(text: str, *pieces: str) -> list[int]:
    found = [text.index(piece) for piece in pieces]
    assert found == sorted(found)
    return found


def test_where_a_message_has_one_call_each_is_followed_by_its_own_result(
    speaker: Callable[[str], Any],
) -> None:
    text = detect_renderer(speaker("llama3")).render([HELLO, TWO, *RESULTS, HELLO], [LOOK]).text

    assert places(text, '{"name": "look"', "result of a", '{"name": "ring"', "result of b")


def test_ids_that_come_again_in_a_later_turn_still_find_their_own_results(
    speaker: Callable[[str], Any],
) -> None:
    first = [TWO, Message("tool", "old a", call_id="a"), Message("tool", "old b", call_id="b")]
    second = [TWO, Message("tool", "new a", call_id="a"), Message("tool", "new b", call_id="b")]

    text = detect_renderer(speaker("llama3")).render([HELLO, *first, *second], [LOOK]).text

    assert places(text, "old a", "old b", "new a", "new b")
    assert text.count("old a") == text.count("new a") == 1


def test_without_a_tool_role_the_results_of_a_turn_are_one_user_message(
    scaffold: PromptRenderer,
) -> None:
    text = scaffold.render([HELLO, TWO, *RESULTS, HELLO], [LOOK]).text

    answers = "".join(f"\n<tool_response>\n{each.text}\n</tool_response>" for each in RESULTS)
    assert f"<|im_start|>user{answers}<|im_end|>" in text
    assert "<|im_start|>tool" not in text
    assert text.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


def test_a_model_with_think_blocks_speaks_its_dialect_and_thinks(thinker: PromptRenderer) -> None:
    assert thinker.dialect.name == "scaffold"
    assert thinker.dialect.think is not None


def test_a_prompt_that_ends_inside_a_think_block_says_so(thinker: PromptRenderer) -> None:
    prompt = thinker.render([HELLO])

    assert prompt.thinking
    assert prompt.text.endswith("<think>\n")


def test_a_think_block_that_nobody_wants_is_closed(thinker: PromptRenderer) -> None:
    prompt = thinker.render([HELLO], think=False)

    assert not prompt.thinking
    assert prompt.text.endswith("<think>\n</think>\n\n")


def test_a_user_who_says_think_opens_no_think_block(scaffold: PromptRenderer) -> None:
    assert not scaffold.render([Message("user", "<think>\n")]).thinking


def test_a_conversation_that_the_template_refuses_is_refused_with_its_words(
    smollm2: Path,
) -> None:
    prompter = detect_renderer(chat_templates.smollm2(smollm2, chat_templates.STRICT))

    with pytest.raises(ChatTemplateError, match="too many messages"):
        prompter.render([HELLO, TWO, *RESULTS, HELLO, TWO, *RESULTS, HELLO, TWO, *RESULTS])
