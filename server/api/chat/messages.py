"""Messages of a chat request as the messages that prompts are rendered from."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from falsework.grammars.events import Call
from falsework.prompts.messages import Message
from falsework.server.api.chat.message_schema import (
    ContentPart,
    ExecutedToolCall,
    MessageParam,
    ToolCallParam,
)
from falsework.server.errors import BadRequestError, missing_parameter, unsupported_value


def parse_messages(messages: Sequence[MessageParam]) -> tuple[Message, ...]:
    """Return the messages, each call answered and each answer to a call."""
    parsed = tuple(_message(message, f"messages.[{i}]") for i, message in enumerate(messages))
    _check_answers(parsed)
    return tuple(
        turn
        for message, raw in zip(parsed, messages, strict=True)
        for turn in (*_executed(raw.executed_tools or ()), message)
    )


def _executed(calls: Sequence[ExecutedToolCall]) -> Iterator[Message]:
    """Yield calls that the server ran as the turn that they were, with their results."""
    if calls:
        yield Message(
            "assistant",
            calls=tuple(Call(call.name, call.arguments) for call in calls),
            call_ids=tuple(call.id for call in calls),
        )
    for call in calls:
        yield Message("tool", _result(call), call_id=call.id, name=call.name)


def _result(call: ExecutedToolCall) -> str:
    if call.error is None:
        return call.output or ""
    envelope = {"ok": False, "error": call.error, "degraded": call.degraded}
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))


def _message(message: MessageParam, param: str) -> Message:
    if message.role not in ROLE_PARSERS:
        raise unsupported_value(message.role, ROLE_PARSERS, f"{param}.role")
    return ROLE_PARSERS[message.role](message, param)


def _system(message: MessageParam, param: str) -> Message:
    return Message("system", _required_text(message, param), name=message.name or "")


def _user(message: MessageParam, param: str) -> Message:
    return Message("user", _required_text(message, param), name=message.name or "")


def _assistant(message: MessageParam, param: str) -> Message:
    if message.function_call is not None:
        raise BadRequestError(
            "'function_call' is deprecated and isn't supported: use 'tool_calls'.",
            f"{param}.function_call",
            "unsupported_parameter",
        )
    calls = message.tool_calls or []
    return Message(
        "assistant",
        _text(message.content or (), f"{param}.content") or message.refusal or "",
        calls=tuple(_call(call, f"{param}.tool_calls[{i}]") for i, call in enumerate(calls)),
        call_ids=tuple(call.id for call in calls),
        name=message.name or "",
        reasoning=message.reasoning_content or message.reasoning or "",
    )


def _tool(message: MessageParam, param: str) -> Message:
    if message.tool_call_id is None:
        raise missing_parameter(f"{param}.tool_call_id")
    text = _required_text(message, param)
    return Message("tool", text, call_id=message.tool_call_id, name=message.name or "")


ROLE_PARSERS: Mapping[str, Callable[[MessageParam, str], Message]] = {
    "assistant": _assistant,
    "developer": _system,
    "system": _system,
    "tool": _tool,
    "user": _user,
}


def _call(call: ToolCallParam, param: str) -> Call:
    if call.type == "custom" and call.custom:
        arguments = json.dumps({"input": call.custom.input}, ensure_ascii=False)
        return Call(call.custom.name, arguments)
    if call.type != "function" or call.function is None:
        raise BadRequestError(
            f"Invalid value: '{call.type[:100]}'. Only calls of functions and custom tools "
            "are supported.",
            f"{param}.type",
            "invalid_value",
        )
    return Call(call.function.name, call.function.arguments)


def _required_text(message: MessageParam, param: str) -> str:
    if message.content is None:
        raise missing_parameter(f"{param}.content")
    return _text(message.content, f"{param}.content")


def _text(parts: Iterable[ContentPart], param: str) -> str:
    return "\n".join(_part(part, f"{param}[{i}]") for i, part in enumerate(parts))


def _part(part: ContentPart, param: str) -> str:
    texts = {"text": part.text, "refusal": part.refusal}
    if part.type not in texts:
        raise BadRequestError(
            f"Invalid value: '{part.type[:100]}'. This model reads text alone: "
            "only parts of type 'text' are supported.",
            f"{param}.type",
            "invalid_value",
        )
    text = texts[part.type]
    if text is None:
        raise missing_parameter(f"{param}.{part.type}")
    return text


def _check_answers(messages: Iterable[Message]) -> None:
    call_ids: frozenset[str] = frozenset()
    unanswered: dict[str, None] = {}
    index = -1
    for index, message in enumerate(messages):
        if message.role == "tool":
            _check_called(message, call_ids, index)
            unanswered.pop(message.call_id, None)
            continue
        _check_all_answered(unanswered, index)
        call_ids = frozenset(message.call_ids)
        unanswered = dict.fromkeys(message.call_ids)
    _check_all_answered(unanswered, index + 1)


def _check_called(message: Message, call_ids: frozenset[str], index: int) -> None:
    if not call_ids:
        raise BadRequestError(
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding "
            "message with 'tool_calls'.",
            f"messages.[{index}].role",
        )
    if message.call_id not in call_ids:
        raise BadRequestError(
            "Invalid parameter: 'tool_call_id' of "
            f"'{message.call_id[:100]}' not found in 'tool_calls' of previous message.",
            f"messages.[{index}].tool_call_id",
        )


def _check_all_answered(unanswered: Iterable[str], index: int) -> None:
    if ids := ", ".join(identifier[:100] for identifier in unanswered):
        raise BadRequestError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. The following tool_call_ids did not have response messages: "
            f"{ids}",
            f"messages.[{index}].role",
        )
