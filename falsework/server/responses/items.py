"""The items of a conversation, as Responses spells them, turned into messages for the prompt."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from falsework.grammars.calls import Call
from falsework.prompts.messages import Message
from falsework.server.refusals import BadRequest

Json = dict[str, Any]

TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
ROLES: Mapping[str, Any] = {
    "assistant": "assistant", "developer": "system", "system": "system", "user": "user",
}  # fmt: skip


@dataclass
class _Conversation:
    """Messages so far; calls and thoughts wait for the assistant's message that holds them."""

    messages: list[Message] = field(default_factory=list)
    thought: str = ""
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)
    results: dict[str, Message] = field(default_factory=dict)
    tools: frozenset[str] = frozenset()

    def close(self, *, where: str = "input") -> None:
        """End the assistant's turn: its text, its calls, and a result for each."""
        if not (self.text or self.calls or self.thought):
            return
        missing = [each for each in self.call_ids if each not in self.results]
        if missing:
            message = f"No tool output found for function call {missing[0][:100]}."
            raise BadRequest(message, where)
        self.messages.append(
            Message("assistant", self.text, tuple(self.calls), tuple(self.call_ids),
                    reasoning=self.thought)
        )  # fmt: skip
        self.messages += [self.results[each] for each in self.call_ids]
        self.thought, self.text = "", ""
        self.calls, self.call_ids, self.results = [], [], {}

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """Add a call to the turn; one after results begins another turn."""
        if self.results:
            self.close()
        self.calls.append(Call(name, arguments))
        self.call_ids.append(call_id)


def conversation(
    items: Sequence[Json], instructions: str | None, tools: frozenset[str] = frozenset()
) -> tuple[Message, ...]:
    """Return the messages of a conversation; refuse an item by its place.

    `tools` are the names of the server's tools.
    """
    said = _Conversation(tools=tools)
    if instructions:
        said.messages.append(Message("system", instructions))
    for position, item in enumerate(items):
        where = f"input[{position}]"
        kind = item.get("type") or ("message" if "role" in item else "item_reference")
        if kind not in READERS:
            known = ", ".join(f"'{each}'" for each in READERS)
            message = f"Invalid value: '{str(kind)[:100]}'. Supported values are: {known}."
            raise BadRequest(message, f"{where}.type", "invalid_value")
        READERS[kind](item, said, where)
    said.close()
    if not any(message.role != "system" for message in said.messages):
        raise BadRequest("'input' should hold at least one message.", "input")
    return tuple(said.messages)


def _message(item: Json, said: _Conversation, where: str) -> None:
    role = ROLES.get(str(item.get("role")))
    if role is None:
        known = ", ".join(f"'{each}'" for each in ROLES)
        message = f"Invalid value: '{str(item.get('role'))[:100]}'. Supported values are: {known}."
        raise BadRequest(message, f"{where}.role", "invalid_value")
    text = _text(item.get("content"), f"{where}.content")
    if role == "assistant":
        if said.calls or said.text:
            said.close(where=where)
        said.text = text
        return
    said.close(where=where)
    said.messages.append(Message(role, text))


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"Invalid '{where}': should be a string or a list.", where, "invalid_type")
    return "\n".join(_part(part, f"{where}[{i}]") for i, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(TEXTS[kind]) if kind in TEXTS else None
    if not isinstance(text, str):
        message = f"Invalid '{where}': this model reads text alone."
        raise BadRequest(message, f"{where}.type", "invalid_value")
    return text


def _function_call(item: Json, said: _Conversation, where: str) -> None:
    said.call(*(_required(item, name, where) for name in ("call_id", "name", "arguments")))


def _custom_call(item: Json, said: _Conversation, where: str) -> None:
    call_id, name = (_required(item, key, where) for key in ("call_id", "name"))
    said.call(call_id, name, json.dumps({"input": item.get("input") or ""}, ensure_ascii=False))


def _function_output(item: Json, said: _Conversation, where: str) -> None:
    call_id = _required(item, "call_id", where)
    if call_id not in said.call_ids:
        message = f"No tool call found for function call output with call_id {call_id[:100]}."
        raise BadRequest(message, f"{where}.call_id")
    said.results[call_id] = Message(
        "tool", _text(item.get("output"), f"{where}.output"), call_id=call_id
    )


def _mcp_call(item: Json, said: _Conversation, where: str) -> None:
    _required(item, "name", where)
    call_id = _required(item, "id", where)
    said.call(call_id, full_name(item, said.tools), item.get("arguments") or "{}")
    error = item.get("error")
    output = item.get("output") if error is None else json.dumps({"ok": False, "error": error})
    said.results[call_id] = Message("tool", output or "", call_id=call_id)


def _reasoning(item: Json, said: _Conversation, _: str) -> None:
    parts = item.get("content") or item.get("summary") or []
    said.thought += "".join(part.get("text", "") for part in parts if isinstance(part, dict))


def _silent(_: Json, __: _Conversation, ___: str) -> None:
    """Read nothing: what stands in this item is not for the model."""


def full_name(item: Json, tools: frozenset[str]) -> str:
    """Return the name under which the server has the tool of an item."""
    full = f"{item.get('server_label')}__{item['name']}"
    return full if full in tools else str(item["name"])


OWN_LABEL = "falsework"
"""The server_label of tools that the server has from nobody's MCP server."""

READERS: Mapping[str, Callable[[Json, _Conversation, str], None]] = {
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _function_output,
    "function_call": _function_call,
    "function_call_output": _function_output,
    "mcp_approval_request": _silent,
    "mcp_approval_response": _silent,
    "mcp_call": _mcp_call,
    "mcp_list_tools": _silent,
    "message": _message,
    "reasoning": _reasoning,
}


def _required(item: Json, name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        missing = f"{where}.{name}"
        message = f"Missing required parameter: '{missing}'."
        raise BadRequest(message, missing, "missing_required_parameter")
    return value


@dataclass(frozen=True)
class Approval:
    """What a client said to a call that waited for it."""

    request: Json
    approved: bool
    reason: str = ""


def approvals(items: Sequence[Json]) -> list[Approval]:
    """Return the answers to approval requests that no call has followed yet."""
    requests = {item["id"]: item for item in items if item.get("type") == "mcp_approval_request"}
    done = {item.get("approval_request_id") for item in items if item.get("type") == "mcp_call"}
    said = []
    for position, item in enumerate(items):
        if item.get("type") != "mcp_approval_response":
            continue
        asked = item.get("approval_request_id")
        if asked not in requests:
            where = f"input[{position}].approval_request_id"
            raise BadRequest(f"No approval request '{str(asked)[:100]}' found.", where)
        if asked not in done:
            approved = item.get("approve") is True
            said.append(Approval(requests[asked], approved, str(item.get("reason") or "")))
    return said


def succeeded(items: Iterable[Json], tools: frozenset[str]) -> frozenset[str]:
    """Return the server's tools that have succeeded in a conversation."""
    return frozenset(
        full_name(item, tools)
        for item in items
        if item.get("type") == "mcp_call" and item.get("name") and item.get("error") is None
    )


def listed(items: Iterable[Json]) -> frozenset[str]:
    """Return the MCP servers whose tools the conversation lists already."""
    return frozenset(
        str(item.get("server_label")) for item in items if item.get("type") == "mcp_list_tools"
    )
