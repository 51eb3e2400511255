"""Messages of Anthropic's protocol as the messages that prompts are rendered from."""

import json
from collections.abc import Iterator, Sequence

from falsework.grammars.events import Call
from falsework.prompts.messages import Message
from falsework.server.api.call_pairing import Entry, OrphanPolicy, PairingErrors, pair_results
from falsework.server.api.media import CONTENT_LEFT_OUT, leave_out_media, not_text
from falsework.server.api.messages.schema import Block, MessageParam
from falsework.server.api.sealed import REASONING, unsealed
from falsework.server.api.validation import ParamPath, param_path, validate
from falsework.server.errors import BadRequestError, missing_parameter
from falsework.server.observability import warn_client

PASSED_OVER = frozenset(
    {"compaction", "container_upload", "fallback", "redacted_thinking", "server_tool_use"}
)
"""Blocks of what others did; so is each whose type ends in `_tool_result`."""


def parse_messages(
    messages: Sequence[MessageParam], system: Sequence[Block] | None, orphans: OrphanPolicy
) -> tuple[Message, ...]:
    """Return the messages, each call followed by its results; raise BadRequestError."""
    if messages[-1].role == "assistant":
        param = f"messages.[{len(messages) - 1}].role"
        message = "A last message of the assistant's (a prefill) isn't continued by this server."
        raise BadRequestError(message, param, "unsupported_parameter")
    head = "\n\n".join(_text(block, f"system[{i}]") for i, block in enumerate(system or ()))
    asking = max((i for i, one in enumerate(messages) if one.role == "user"), default=-1)
    entries = [
        Entry(message, f"messages.[{i}]")
        for i, one in enumerate(messages)
        for message in _messages(one, ("messages", i, "content"), past=i < asking)
    ]
    paired = pair_results(entries, ERRORS, orphans)
    return (*([Message("system", head)] if head else []), *paired)


def _orphan(entry: Entry, _: frozenset[str]) -> BadRequestError:
    message = (
        f"unexpected `tool_use_id` found in `tool_result` blocks: {entry.message.call_id[:100]}. "
        "Each `tool_result` block must have a corresponding `tool_use` block before it."
    )
    return BadRequestError(message, f"{entry.param}.content")


def _unanswered(ids: Sequence[str], _: int) -> BadRequestError:
    message = (
        "`tool_use` ids were found without `tool_result` blocks after them: "
        f"{', '.join(one[:100] for one in ids)}."
    )
    return BadRequestError(message, "messages")


ERRORS = PairingErrors(_orphan, _unanswered)


def _messages(message: MessageParam, at: ParamPath, *, past: bool) -> Iterator[Message]:
    """Yield what a message holds; `past`: the user has asked something else since."""
    match message.role:
        case "assistant":
            yield _assistant(message, at)
        case "system":
            blocks = enumerate(message.content)
            text = "\n".join(_text(block, param_path((*at, i))) for i, block in blocks)
            yield Message("system", text)
        case "user":
            yield from _user(message, at, past=past)


def _user(message: MessageParam, at: ParamPath, *, past: bool) -> Iterator[Message]:
    texts: list[str] = []
    for i, block in enumerate(message.content):
        if block.type == "tool_result":
            text = _result(block, (*at, i))
            yield Message("tool", text, call_id=block.tool_use_id or "")
        else:
            texts.append(_shown(block, param_path((*at, i)), past=past))
    if texts:
        yield Message("user", "\n".join(texts))


def _assistant(message: MessageParam, at: ParamPath) -> Message:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[tuple[str, Call]] = []
    for i, block in enumerate(message.content):
        param = param_path((*at, i))
        match block.type:
            case "text":
                texts.append(_text(block, param))
            case "thinking":
                kept = unsealed(block.signature or "", REASONING)
                thoughts.append(block.thinking or kept or "")
            case "tool_use":
                if not block.name:
                    raise missing_parameter(f"{param}.name")
                arguments = json.dumps(block.input or {}, ensure_ascii=False)
                calls.append((block.id or "", Call(block.name, arguments)))
            case kind if kind in PASSED_OVER or kind.endswith("_tool_result"):
                said = f"{param}, a '{kind[:100]}', is left out: others made it."
                warn_client(CONTENT_LEFT_OUT, said, param)
            case kind:
                raise not_text(kind, f"{param}.type")
    return Message(
        "assistant",
        "\n".join(texts),
        calls=tuple(call for _, call in calls),
        call_ids=tuple(call_id for call_id, _ in calls),
        reasoning="\n".join(thoughts),
    )


def _result(block: Block, at: ParamPath) -> str:
    """Return the text of a result, which says so if the tool failed."""
    content = block.content
    if isinstance(content, str) or content is None:
        text = content or ""
    elif isinstance(content, list):
        inner = [
            validate(Block, one, (*at, "content", i)) for i, one in enumerate(map(_object, content))
        ]
        text = "\n".join(
            _shown(one, param_path((*at, "content", i)), past=True) for i, one in enumerate(inner)
        )
    else:
        param = param_path((*at, "content"))
        message = f"Invalid '{param}': Input should be a string or a list of blocks."
        raise BadRequestError(message, param, "invalid_type")
    return f"Error: {text}" if block.is_error else text


def _object(block: object) -> dict[str, object]:
    return block if isinstance(block, dict) else {}


def _shown(block: Block, param: str, *, past: bool) -> str:
    """Return the text of a block; what is none is told in words where it isn't asked about."""
    if block.type == "tool_reference":
        return block.tool_name or ""
    if block.type == "text" or not (block.source or block.content):
        return _text(block, param)
    source = block.source if isinstance(block.source, dict) else {}
    if block.type == "document" and source.get("type") == "text":
        return str(source.get("data") or "")
    if block.type == "search_result" and isinstance(block.content, list):
        found = [str(_object(one).get("text") or "") for one in block.content]
        return "\n".join([block.title or "", *found]).strip()
    if not past:
        raise not_text(block.type, f"{param}.type")
    return leave_out_media(block.type, {**source, "title": block.title}, param)


def _text(block: Block, param: str) -> str:
    if block.type != "text":
        raise not_text(block.type, f"{param}.type")
    if block.text is None:
        raise missing_parameter(f"{param}.text")
    return block.text
