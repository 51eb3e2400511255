"""Messages of a chat request as the messages that prompts are rendered from."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from falsework.grammars.events import Call
from falsework.prompts.messages import Message
from falsework.server.api.call_pairing import (
    Entry,
    OrphanPolicy,
    PairingErrors,
    pair_results,
)
from falsework.server.api.chat.message_schema import (
    ContentPart,
    ExecutedToolCall,
    MessageParam,
    ToolCallFunction,
    ToolCallParam,
)
from falsework.server.api.media import leave_out_media, not_text
from falsework.server.api.validation import validate
from falsework.server.errors import BadRequestError, missing_parameter, unsupported_value


def parse_messages(
    messages: Sequence[MessageParam], orphans: OrphanPolicy = "refuse"
) -> tuple[Message, ...]:
    """Return the messages, each call followed by its results; raise BadRequestError."""
    asking = max((i for i, raw in enumerate(messages) if raw.role == "user"), default=-1)
    entries = [
        Entry(message, f"messages.[{i}]")
        for i, raw in enumerate(messages)
        for message in (
            *_executed(raw.executed_tools or ()),
            _message(raw, f"messages.[{i}]", past=i < asking),
        )
    ]
    return pair_results(entries, _errors([entry.param for entry in entries]), orphans)


def _errors(params: Sequence[str]) -> PairingErrors:
    """Return what OpenAI's API says; `params` are the fields of all entries."""

    def orphan(entry: Entry, call_ids: frozenset[str]) -> BadRequestError:
        if not call_ids:
            return BadRequestError(
                "Invalid parameter: messages with role 'tool' must be a response to a preceeding "
                "message with 'tool_calls'.",
                f"{entry.param}.role",
            )
        return BadRequestError(
            "Invalid parameter: 'tool_call_id' of "
            f"'{entry.message.call_id[:100]}' not found in 'tool_calls' of previous message.",
            f"{entry.param}.tool_call_id",
        )

    def unanswered(ids: Sequence[str], position: int) -> BadRequestError:
        behind = position >= len(params)
        param = f"messages.[{_count(params)}]" if behind else params[position]
        return BadRequestError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. The following tool_call_ids did not have response messages: "
            f"{', '.join(call_id[:100] for call_id in ids)}",
            f"{param}.role",
        )

    return PairingErrors(orphan, unanswered)


def _count(params: Sequence[str]) -> int:
    return len(dict.fromkeys(params))


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


def _message(message: MessageParam, param: str, *, past: bool) -> Message:
    """Return a message; `past`: the user has asked something else since."""
    if message.role == "user":
        text = _required_text(message, param, _placeholder if past else None)
        return Message("user", text, name=message.name or "")
    if message.role not in ROLE_PARSERS:
        raise unsupported_value(message.role, (*ROLE_PARSERS, "user"), f"{param}.role")
    return ROLE_PARSERS[message.role](message, param)


def _system(message: MessageParam, param: str) -> Message:
    return Message("system", _required_text(message, param), name=message.name or "")


def _assistant(message: MessageParam, param: str) -> Message:
    given = message.tool_calls or []
    calls = [_call(call, f"{param}.tool_calls[{i}]") for i, call in enumerate(given)]
    if message.function_call and not given:
        said = validate(ToolCallFunction, message.function_call, (f"{param}.function_call",))
        calls = [Call(said.name, said.arguments or "{}")]
    return Message(
        "assistant",
        _text(message.content or (), f"{param}.content") or message.refusal or "",
        calls=tuple(calls),
        call_ids=tuple(call.id or "" for call in given) or ("",) * len(calls),
        name=message.name or "",
        reasoning=message.reasoning_content or message.reasoning or "",
    )


def _tool(message: MessageParam, param: str) -> Message:
    text = _required_text(message, param, _placeholder)
    return Message("tool", text, call_id=message.tool_call_id or "", name=message.name or "")


ROLE_PARSERS: Mapping[str, Callable[[MessageParam, str], Message]] = {
    "assistant": _assistant,
    "developer": _system,
    "function": _tool,
    "system": _system,
    "tool": _tool,
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
    return Call(call.function.name, call.function.arguments or "{}")


def _required_text(
    message: MessageParam, param: str, other: Callable[[ContentPart, str], str] | None = None
) -> str:
    if message.content is None:
        raise missing_parameter(f"{param}.content")
    return _text(message.content, f"{param}.content", other)


def _text(
    parts: Iterable[ContentPart], param: str, other: Callable[[ContentPart, str], str] | None = None
) -> str:
    """Return the text of a content; `other` gives what stands for parts that are no text."""
    return "\n".join(_part(part, f"{param}[{i}]", other) for i, part in enumerate(parts))


def _part(part: ContentPart, param: str, other: Callable[[ContentPart, str], str] | None) -> str:
    texts = {"text": part.text, "refusal": part.refusal}
    if part.type not in texts:
        return (other or _refuse_part)(part, param)
    text = texts[part.type]
    if text is None:
        raise missing_parameter(f"{param}.{part.type}")
    return text


def _refuse_part(part: ContentPart, param: str) -> str:
    raise not_text(part.type, f"{param}.type")


def _placeholder(part: ContentPart, param: str) -> str:
    return leave_out_media(part.type, part.media(), param)
