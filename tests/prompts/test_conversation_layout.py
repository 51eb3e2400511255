"""Conversations that a template refuses are laid out so that it accepts them, with nothing lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import chat_templates

from falsework.grammars.events import Call, Tool
from falsework.prompts.conversation_layout import short_id
from falsework.prompts.detection import detect_renderer
from falsework.prompts.messages import Message
from falsework.prompts.renderer import PromptRenderer

HELLO, MORE = Message("user", "Hello"), Message("user", "And more")
KIND = Message("system", "Be kind.")
BRIEF = Message("system", "Be brief.")
ANSWER = Message("assistant", "Hi.")
CALL = Message("assistant", calls=(Call("look", '{"at": "x"}'),), call_ids=("call_0123456789",))
SAID_AND_CALLED = Message("assistant", "Let me see.", CALL.calls, CALL.call_ids)
RESULT = Message("tool", 'seen "it"', call_id="call_0123456789")
LOOK = Tool("look", "Looks somewhere.", {"properties": {"at": {"type": "string"}}})

# After google/gemma-2-2b-it: no system message, user and assistant by turns.
TURNS = """\
{%- if messages[0].role == "system" %}{{ raise_exception("System role not supported") }}{% endif %}
{%- for message in messages %}
{%- if (message.role == "user") != (loop.index0 % 2 == 0) %}
{{- raise_exception("Conversation roles must alternate") }}{% endif %}
{{- "<" + message.role + ">" + message.content }}{% endfor %}"""

# After mistralai/Mistral-Nemo-Instruct-2407: results aren't counted, ids have nine characters.
NINE = """\
{%- set ns = namespace(count=0) %}
{%- for message in messages %}
{%- if message.role == "user" or (message.role == "assistant" and not message.tool_calls) %}
{%- if (message.role == "user") != (ns.count % 2 == 0) %}
{{- raise_exception("Conversation roles must alternate") }}{% endif %}
{%- set ns.count = ns.count + 1 %}{% endif %}
{%- if message.role == "tool" %}
{%- if message.tool_call_id | length != 9 %}{{ raise_exception("ids have length 9") }}{% endif %}
{{- "[TOOL_RESULTS]" + message.content }}
{%- elif message.tool_calls %}
{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception("ids have length 9") }}{% endif %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}}\\n</tool_call>{% endfor %}
{%- else %}{{ "<" + message.role + ">" + message.content }}{% endif %}{% endfor %}"""

# After google/functiongemma-270m-it: it asks how many tools there are.
COUNTS_TOOLS = (
    "{{ tools | length }} tools{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)

# After HuggingFaceTB/SmolVLM-Instruct: content is a list of parts.
PARTS = """\
{%- for message in messages %}<{{ message.role }}>
{%- for part in message.content %}{{ part.text }}{% endfor %}{% endfor %}"""

# After meta-llama/Llama-3.1-8B-Instruct: a text is iterable, and so it is quoted.
QUOTES = """\
{%- for message in messages %}<|{{ message.role }}|>
{%- if message.tool_calls %}{% set call = message.tool_calls[0].function %}
{{- '{"name": "' + call.name + '", "parameters": ' }}{{ call.arguments | tojson }}}
{%- elif message.role == "tool" %}
{%- if message.content is mapping or message.content is iterable %}{{ message.content | tojson }}
{%- else %}{{ message.content }}{% endif %}
{%- else %}{{ message.content }}{% endif %}<|end|>{% endfor %}{% if tools %}{% endif %}"""

# After deepseek-ai/DeepSeek-V3: text beside calls makes it forget the calls.
FORGETS = """\
{%- for message in messages %}<{{ message.role }}>
{%- if message.tool_calls and message.content is none %}
{%- for call in message.tool_calls %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments }}}\\n</tool_call>{% endfor %}
{%- elif message.content %}{{ message.content }}{% endif %}{% endfor %}"""

CONVERSATIONS = {
    "a system message": [KIND, HELLO],
    "several system messages": [KIND, BRIEF, HELLO],
    "a system message later": [KIND, HELLO, ANSWER, BRIEF, MORE],
    "a system message alone at the end": [HELLO, BRIEF],
    "two users": [HELLO, MORE],
    "two assistants": [HELLO, ANSWER, ANSWER, MORE],
    "the assistant first": [ANSWER, HELLO],
    "a call and its result": [HELLO, CALL, RESULT],
    "text beside a call": [HELLO, SAID_AND_CALLED, RESULT],
    "a result and a user": [HELLO, CALL, RESULT, MORE],
    "two tool turns": [HELLO, CALL, RESULT, CALL, RESULT, ANSWER, MORE],
}
TEMPLATES = {
    "turns": TURNS, "nine": NINE, "counts tools": COUNTS_TOOLS, "parts": PARTS, "quotes": QUOTES,
    "forgets": FORGETS, "hermes": chat_templates.HERMES,
}  # fmt: skip

Made = Callable[[str], PromptRenderer]


@pytest.fixture(scope="module")
def renderer_of(smollm2: Path) -> Made:
    """Give the renderer of a template by its name."""
    made: dict[str, PromptRenderer] = {}

    def renderer(name: str) -> PromptRenderer:
        if name not in made:
            made[name] = detect_renderer(chat_templates.smollm2(smollm2, TEMPLATES[name]))
        return made[name]

    return renderer


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_every_conversation_is_accepted_and_nothing_is_lost(
    name: str, conversation: str, renderer_of: Made
) -> None:
    messages = CONVERSATIONS[conversation]

    text = renderer_of(name).render(messages, [LOOK]).text

    for message in messages:
        assert text.count(message.text) >= messages.count(message)
        assert all(f'"{call.name}"' in text for call in message.calls)


def test_what_a_template_accepts_stays_where_it_is(renderer_of: Made) -> None:
    text = renderer_of("hermes").render([KIND, HELLO, ANSWER, BRIEF, MORE]).text

    assert text.index("Hi.") < text.index("Be brief.") < text.index("And more")


def test_where_there_is_no_system_message_it_begins_the_users(renderer_of: Made) -> None:
    text = renderer_of("turns").render([KIND, HELLO, MORE]).text

    assert text == "<user>Be kind.\n\nHello\n\nAnd more"


def test_between_a_result_and_a_user_the_assistant_says_nothing(renderer_of: Made) -> None:
    text = renderer_of("nine").render([HELLO, CALL, RESULT, MORE], [LOOK]).text

    assert text.endswith('seen "it"<assistant><user>And more')


def test_ids_of_nine_characters_are_the_same_for_the_same_call() -> None:
    assert short_id("call_0123456789") == short_id("call_0123456789") != short_id("call_1")
    assert len(short_id("call_0123456789")) == 9
    assert short_id("a1B2c3D4e") == "a1B2c3D4e"


@pytest.mark.parametrize("result", ['{"celsius": 21}', "21 °C", '"quoted"', "", "a\nb"])
def test_a_result_is_shown_as_it_is_where_the_template_would_quote_it(
    result: str, renderer_of: Made
) -> None:
    answered = Message("tool", result, call_id=RESULT.call_id)

    text = renderer_of("quotes").render([HELLO, CALL, answered], [LOOK]).text

    assert text.endswith(f"<|tool|>{result}<|end|>")


def test_text_beside_a_call_is_kept_as_the_template_joins_them(renderer_of: Made) -> None:
    text = renderer_of("hermes").render([HELLO, SAID_AND_CALLED, RESULT], [LOOK]).text

    assert 'Let me see.\n<tool_call>\n{"name": "look"' in text
