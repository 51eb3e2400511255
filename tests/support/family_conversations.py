"""Ordinary conversations in OpenAI's shape and in ours, for holding prompts to a family's own."""

import json
from dataclasses import dataclass
from typing import Any

from falsework.grammars.events import Call, Tool
from falsework.prompts.messages import Message

WEATHER = Tool(
    "get_weather",
    "The weather of a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city."},
            "days": {"type": "integer", "description": "How many days."},
        },
        "required": ["city"],
    },
)
CLOCK = Tool(
    "get_time",
    "The time of a place.",
    {
        "type": "object",
        "properties": {"place": {"type": "string", "description": "Name of the place."}},
        "required": ["place"],
    },
)
TOOLS = (WEATHER, CLOCK)

_ASK = Message("user", "What's the weather in Zürich?")
_RULE = Message("system", "Be brief.")
_CALL = Message(
    "assistant",
    calls=(Call("get_weather", '{"city": "Zürich", "days": 3}'),),
    call_ids=("call00000",),
)
_RESULT = Message("tool", '{"celsius": 21}', call_id="call00000", name="get_weather")
_ANSWER = Message("assistant", "21 degrees.")
_TWO = Message(
    "assistant",
    calls=(Call("get_weather", '{"city": "Bern"}'), Call("get_time", '{"place": "Bern"}')),
    call_ids=("call00000", "call00001"),
)
_TWO_RESULTS = (
    Message("tool", "18 degrees", call_id="call00000", name="get_weather"),
    Message("tool", "12:30", call_id="call00001", name="get_time"),
)
_LATER = Message(
    "assistant", calls=(Call("get_time", '{"place": "Zürich"}'),), call_ids=("call00001",)
)
_LATER_RESULT = Message("tool", "12:31", call_id="call00001", name="get_time")


@dataclass(frozen=True)
class Conversation:
    """A conversation and the tools offered with it."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = TOOLS
    think: bool = True


CONVERSATIONS = {
    "system, user, tools": Conversation((_RULE, _ASK)),
    "user, tools": Conversation((_ASK,)),
    "no tools": Conversation((_RULE, _ASK), ()),
    "answered, no tools": Conversation((_ASK, _ANSWER, Message("user", "And tomorrow?")), ()),
    "call and result": Conversation((_ASK, _CALL, _RESULT)),
    "system, call and result": Conversation((_RULE, _ASK, _CALL, _RESULT)),
    "two calls and results": Conversation((_ASK, _TWO, *_TWO_RESULTS)),
    "answered, next user": Conversation((_ASK, _CALL, _RESULT, _ANSWER, Message("user", "Thanks"))),
    "two tool turns": Conversation((_ASK, _CALL, _RESULT, _LATER, _LATER_RESULT)),
    "tool turns of two users": Conversation(
        (_ASK, _CALL, _RESULT, _ANSWER, Message("user", "And the time?"), _LATER, _LATER_RESULT)
    ),
    "text and call": Conversation(
        (_ASK, Message("assistant", "Let me look.", _CALL.calls, _CALL.call_ids), _RESULT)
    ),
    "call without arguments": Conversation(
        (_ASK, Message("assistant", "", (Call("get_time", "{}"),), ("call00000",)),
         Message("tool", "12:30", call_id="call00000", name="get_time"))
    ),
    "unicode and quotes": Conversation(
        (Message("user", 'Say "東京"\n'), Message("assistant", "", (Call(
            "get_weather", '{"city": "東京 \\"\\n"}'),), ("call00000",)), _RESULT)
    ),
    "long": Conversation((_RULE, *(_ASK, _CALL, _RESULT, _ANSWER) * 5, _ASK)),
    "result then user": Conversation((_ASK, _CALL, _RESULT, Message("user", "And?"))),
    "history calls, no tools": Conversation((_ASK, _CALL, _RESULT), ()),
    "reasoning kept": Conversation(
        (_ASK, Message("assistant", "", _CALL.calls, _CALL.call_ids, reasoning="Hm."), _RESULT)
    ),
    "reasoning answered": Conversation(
        (_ASK, Message("assistant", "21.", reasoning="Hm."), Message("user", "And?"))
    ),
    "one tool": Conversation((_ASK,), (CLOCK,)),
    "think off": Conversation((_RULE, _ASK), think=False),
    "think off, call and result": Conversation((_ASK, _CALL, _RESULT), think=False),
    "think off, no tools": Conversation((_ASK,), (), think=False),
}  # fmt: skip
ORDINARY = (
    "system, user, tools", "user, tools", "no tools", "call and result", "two calls and results",
    "answered, next user", "two tool turns", "result then user",
)  # fmt: skip


def described(tools: tuple[Tool, ...]) -> list[dict[str, Any]]:
    """Return tools as a chat template takes them."""
    return [
        {"type": "function", "function": {
            "name": tool.name, "description": tool.description, "parameters": tool.parameters}}
        for tool in tools
    ]  # fmt: skip


def as_openai(
    messages: tuple[Message, ...], *, as_text: bool, empty_content: str | None
) -> list[dict[str, Any]]:
    """Return messages in OpenAI's shape; templates differ in two points of it."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.reasoning:
            turn |= {"reasoning_content": message.reasoning}
        if message.role == "tool":
            turn |= {"tool_call_id": message.call_id, "name": message.name}
        if message.calls:
            turn["content"] = message.text or empty_content
            turn["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {
                    "name": call.name,
                    "arguments": call.arguments if as_text else json.loads(call.arguments)}}
                for call, call_id in zip(message.calls, message.call_ids, strict=True)
            ]  # fmt: skip
        turns.append(turn)
    return turns
