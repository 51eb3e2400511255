"""A conversation with tools, in which one place says what a test wants."""

import json

from falsework.grammars.events import Call, Tool
from falsework.prompts.messages import Message

PLAIN = "plain"
PLACES = (
    "system", "user", "user name", "assistant", "reasoning", "call name", "argument name",
    "argument", "escaped argument", "call id", "result", "result name", "answer", "tool name",
    "tool description", "parameter name", "parameter", "enum",
)  # fmt: skip
"""Everywhere that a client or a tool can write to."""


def conversation(place: str, text: str) -> tuple[list[Message], list[Tool]]:
    """Make a conversation with a tool, in which one place says `text`."""

    def at(name: str, other: str = PLAIN) -> str:
        return text if name == place else other

    arguments = json.dumps({at("argument name"): at("argument"), "n": 1}, ensure_ascii=False)
    if place == "escaped argument":
        arguments = '{"at": "' + "".join(f"\\u{ord(character):04x}" for character in text) + '"}'
    call_id = at("call id", "call_1")
    parameters = {
        "type": "object",
        "properties": {at("parameter name"): {"type": "string", "description": at("parameter")}},
        "required": [at("enum")],
    }
    messages = [
        Message("system", at("system")),
        Message("user", at("user"), name=at("user name", "")),
        Message("assistant", at("assistant"), (Call(at("call name"), arguments),), (call_id,),
                reasoning=at("reasoning")),
        Message("tool", at("result"), call_id=call_id, name=at("result name")),
        Message("assistant", at("answer")),
        Message("user", "Go on."),
    ]  # fmt: skip
    return messages, [Tool(at("tool name"), at("tool description"), parameters)]
