"""Models that start all the same, and models that can't: one sentence says why."""

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest
from support import chat_templates

from falsework.prompts.detection import detect_renderer
from falsework.prompts.errors import UnusableModel
from falsework.prompts.messages import Message
from falsework.prompts.tokenizers import load_tokenizer

HELLO = [Message("user", "Hello")]
TRACKED = """\
{%- for message in messages %}{% if message.role == "assistant" %}
{%- generation -%}{{ message.content }}{%- endgeneration -%}
{%- else %}{{ message.content }}{% endif %}{% endfor %}"""


@pytest.fixture
def mistral(smollm2: Path, tmp_path: Path) -> Path:
    """Make a folder as Mistral publishes them: tekken.json beside tokenizer.json."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(smollm2 / name, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral"}))
    tekken = resources.files("mistral_common").joinpath("data/tekken_240911.json")
    (tmp_path / "tekken.json").write_bytes(tekken.read_bytes())
    return tmp_path


def test_a_tekken_file_beside_the_tokenizer_is_left_aside(mistral: Path) -> None:
    renderer = detect_renderer(load_tokenizer(str(mistral)))

    assert "<|im_start|>user\nHello<|im_end|>" in renderer.render(HELLO).text


def test_a_template_that_marks_what_the_assistant_said_is_read(smollm2: Path) -> None:
    renderer = detect_renderer(chat_templates.smollm2(smollm2, TRACKED))

    text = renderer.render([*HELLO, Message("assistant", "Hi."), *HELLO]).text

    assert text == "HelloHi.Hello"


def test_a_given_template_stands_for_the_models_own(smollm2: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("Own: {{ messages[0].content }}")

    renderer = detect_renderer(load_tokenizer(str(smollm2), str(file)))

    assert renderer.render(HELLO).text == "Own: Hello"


@pytest.mark.parametrize(
    ("template", "said"),
    [("{% if %}", "can't be read"), ("{{ x", "line 1"), (None, "--chat-template")],
)
def test_a_template_that_is_none_is_refused(template: str | None, said: str) -> None:
    tokenizer = chat_templates.deepseek(template or "")
    tokenizer.chat_template = template

    with pytest.raises(UnusableModel, match=said):
        detect_renderer(tokenizer)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))

    with pytest.raises(UnusableModel, match="tokenizer") as refused:
        load_tokenizer(str(tmp_path))

    assert "\n" not in str(refused.value)


def test_a_template_file_that_is_not_there_is_refused_by_name(smollm2: Path) -> None:
    with pytest.raises(UnusableModel, match=r"/nowhere\.jinja"):
        load_tokenizer(str(smollm2), "/nowhere.jinja")
