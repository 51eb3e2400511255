"""The assistant's message of a chat completion, folded from the events of a reply."""

import json

from falsework.grammars.events import Arguments, CallBegins, Event, Reasoning, Text
from falsework.server.ids import new_id
from falsework.server.types import Json


def message_object(events: list[Event], custom_tools: frozenset[str]) -> Json:
    """Return the message; calls of `custom_tools` are shown as custom calls."""
    text = "".join(event.text for event in events if isinstance(event, Text))
    reasoning = "".join(event.text for event in events if isinstance(event, Reasoning))
    calls = [
        _call(event, events, custom=event.name in custom_tools)
        for event in events
        if isinstance(event, CallBegins)
    ]
    message: Json = {
        "role": "assistant",
        "content": text or (None if calls else ""),
        "refusal": None,
        "annotations": [],
    }
    if reasoning:
        message |= {"reasoning_content": reasoning, "reasoning": reasoning}
    return {**message, "tool_calls": calls} if calls else message


def _call(begin: CallBegins, events: list[Event], *, custom: bool) -> Json:
    pieces = [
        event.text
        for event in events
        if isinstance(event, Arguments) and event.index == begin.index
    ]
    if custom:
        return custom_call(begin.name, "".join(pieces))
    function = {"name": begin.name, "arguments": "".join(pieces)}
    return {"id": new_id("call_"), "type": "function", "function": function}


def custom_call(name: str, arguments: str) -> Json:
    """Return the call of a custom tool, whose text is the one argument of a function."""
    text = json.loads(arguments)["input"]
    return {"id": new_id("call_"), "type": "custom", "custom": {"name": name, "input": text}}
