"""How a request's wish for reasoning reaches the chat template, and reasoning out of past texts."""

from dataclasses import replace
from typing import Any

from falsework.grammars.call_formats import ReasoningTags
from falsework.prompts.chat_template import ChatTemplate
from falsework.prompts.dialects import Dialect
from falsework.prompts.messages import Message

THINK_SWITCHES = ("enable_thinking", "thinking")
"""Switches of chat templates that turn thinking on (True) and off (False)."""
_OFF = {"thinking_mode": "disabled", "thinking_option": "off"}
"""The same in words; on is these templates' default."""
_EFFORT_SWITCHES = ("reasoning_effort", "thinking_effort", "reasoning_strength")
_LEVELS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
"""The nearest of low, medium and high, where a template doesn't say that it knows more."""
_NO_EFFORT = ("none", "no_think")


def reasoning_switches(
    template: ChatTemplate, dialect: Dialect, effort: str | None, *, think: bool = True
) -> dict[str, Any]:
    """Return the variables that tell the template of thinking and of its effort.

    Whether to think is told only to templates of models whose think block is known: others would
    open one that reaches the client as content.
    """
    switches: dict[str, Any] = {}
    if dialect.think:
        switches |= dict.fromkeys(THINK_SWITCHES, think)
        switches |= {} if think else _OFF
    if effort is not None:
        switches |= {name: _level(template, name, effort) for name in _EFFORT_SWITCHES}
    return {name: value for name, value in switches.items() if name in template.switches}


def _level(template: ChatTemplate, switch: str, effort: str) -> str:
    """Return the effort in the template's own words."""
    known = template.values_of(switch)
    candidates = (effort, *(_NO_EFFORT if effort == "none" else ()))
    return next((word for word in candidates if word in known), _LEVELS.get(effort, effort))


def separate_reasoning(message: Message, tags: ReasoningTags) -> Message:
    """Return an assistant's message with the think block that begins its text as its reasoning."""
    opening = tags.opening.strip()
    text = message.text.lstrip()
    if message.role != "assistant" or message.reasoning or not text.startswith(opening):
        return message
    reasoning, closed, answer = text.removeprefix(opening).partition(tags.closing.strip())
    if not closed:
        return message
    return replace(message, reasoning=reasoning.strip("\n"), text=answer.lstrip("\n"))
