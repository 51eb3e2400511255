"""Messages as the turns that a chat template is given."""

import json
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from falsework.prompts.chat_template import ChatTemplate, Turn
from falsework.prompts.dialects import Dialect
from falsework.prompts.messages import Message
from falsework.prompts.template_features import TemplateFeatures

_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Names under which chat templates read the reasoning of a past message."""


@dataclass(frozen=True)
class TurnFactory:
    """Makes turns for one chat template; `tool_role`: it has a place for tool results."""

    template: ChatTemplate
    dialect: Dialect
    tool_role: bool

    def turns(
        self, messages: Iterable[Message], features: TemplateFeatures, raw: "RawResults"
    ) -> Iterator[Turn]:
        """Yield the turns of messages; without a tool role, the results of one are the user's."""
        results: list[str] = []
        names: dict[str, str] = {}
        for message in messages:
            if message.role == "tool" and not self.tool_role:
                results.append(f"<tool_response>\n{message.text}\n</tool_response>")
                continue
            if results:
                yield {"role": "user", "content": "\n".join(results)}
                results = []
            if message.role == "tool":
                text = raw.add(message.text) if features.quotes_results else message.text
                name = message.name or names.get(message.call_id, "")
                yield {
                    "role": "tool",
                    "content": text,
                    "name": name,
                    "tool_call_id": message.call_id,
                }
                continue
            names |= zip(message.call_ids, (call.name for call in message.calls), strict=False)
            yield self.turn(message, features)
        if results:
            yield {"role": "user", "content": "\n".join(results)}

    def turn(self, message: Message, features: TemplateFeatures) -> Turn:
        """Return the turn of a message that is no tool result."""
        text, reasoning = message.text, message.reasoning
        calls = self._past_calls(message, features)
        if calls and text and reasoning and not features.reasoning_beside_text:
            text, reasoning = "", f"{reasoning}\n\n{text}"
        turn: Turn = {"role": message.role, "content": text}
        if reasoning:
            fields = filter(self.template.mentions, _REASONING_FIELDS)
            turn |= dict.fromkeys(fields, reasoning)
        if calls and self.dialect.past_calls:
            content = text or self.dialect.past_calls.empty_content
            return {**turn, "content": content, "tool_calls": calls}
        if message.calls:
            gap = features.text_gap if text and not text.endswith("\n") else ""
            turn["content"] = text + gap + self.dialect.markup.render(message.calls)
        return turn

    def _past_calls(self, message: Message, features: TemplateFeatures) -> list[Turn]:
        """Return the calls as the template takes them, none where they are to be spelled here."""
        past = self.dialect.past_calls
        if past is None or (message.text and not features.text_beside_calls):
            return []
        ids = message.call_ids or ("",) * len(message.calls)
        calls = []
        for call, call_id in zip(message.calls, ids, strict=True):
            arguments = call.arguments if past.as_text else as_object(call.arguments)
            if arguments is None:
                return []  # a template that takes objects has no place for what is none
            function = {"name": call.name, "arguments": arguments}
            calls.append({"id": call_id, "type": "function", "function": function})
        return calls


class RawResults:
    """Results that the template would quote as JSON strings: placeholders stand for them.

    Meta's and OpenAI's own documents of their formats show results as they are.
    """

    def __init__(self) -> None:
        self._word = "r" + secrets.token_hex(8)
        self._texts: list[str] = []

    def add(self, text: str) -> str:
        """Return the placeholder of a result."""
        self._texts.append(text)
        return f"{self._word}x{len(self._texts) - 1}"

    def put_into(self, rendered: str) -> str:
        """Return the prompt with each placeholder, and the quotes round it, replaced."""
        if not self._texts:
            return rendered
        return re.sub(
            f'"?{self._word}x([0-9]+)"?', lambda found: self._texts[int(found[1])], rendered
        )


def as_object(arguments: str) -> dict[str, Any] | None:
    """Return the object that arguments spell; None where they spell none."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
