"""The items of a conversation, turned into messages for the prompt."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from falsework.grammars.events import Call
from falsework.prompts.messages import Message
from falsework.server.api.chat.schema import param_path
from falsework.server.api.responses.item_schema import (
    Content,
    CustomToolCall,
    FunctionCall,
    Item,
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpListTools,
    MessageItem,
    ReasoningItem,
    ToolCallOutput,
    parse_item,
)
from falsework.server.api.server_tools import BUILTIN_SERVER_LABEL
from falsework.server.errors import BadRequestError
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult

Json = dict[str, Any]

SERVER_MADE = "made_here"
"""Marks the items of a kept conversation that this server made; clients can't set it."""


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

    @property
    def answered(self) -> bool:
        """Whether each call of the turn has its result."""
        return all(each in self.results for each in self.call_ids)

    def close(self, *, where: str = "input") -> None:
        """End the assistant's turn: its text, its calls, and a result for each."""
        if not (self.text or self.calls or self.thought):
            return
        missing = [each for each in self.call_ids if each not in self.results]
        if missing:
            message = f"No tool output found for function call {missing[0][:100]}."
            raise BadRequestError(message, where)
        self.messages.append(
            Message("assistant", self.text, tuple(self.calls), tuple(self.call_ids),
                    reasoning=self.thought)
        )  # fmt: skip
        self.messages += [self.results[each] for each in self.call_ids]
        self.thought, self.text = "", ""
        self.calls, self.call_ids, self.results = [], [], {}

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """Add a call to the turn; one after all results begins another turn."""
        if self.results and self.answered:
            self.close()
        self.calls.append(Call(name, arguments or "{}"))
        self.call_ids.append(call_id)


def to_messages(
    items: Sequence[Json],
    instructions: str | None,
    tools: frozenset[str] = frozenset(),
    before: int = 0,
) -> tuple[Message, ...]:
    """Return the messages of a conversation; refuse an item by its place in the input.

    `tools` are the names of the server's tools, `before` is how many items aren't of the input.
    """
    said = _Conversation(tools=tools)
    for position, each in enumerate(items, -before):
        at = ("previous_response_id",) if position < 0 else ("input", position)
        item = parse_item(each, at)
        ITEM_HANDLERS[type(item)](item, said, param_path(at))
    said.close()
    if not said.messages:
        raise BadRequestError("'input' should hold at least one message.", "input")
    head = (Message("system", instructions),) if instructions else ()
    return (*head, *said.messages)


def _message(item: MessageItem, said: _Conversation, where: str) -> None:
    text = _text(item.content)
    if item.role == "assistant":
        if said.calls or said.text:
            said.close(where=where)
        said.text = text
        return
    said.close(where=where)
    said.messages.append(Message("user" if item.role == "user" else "system", text))


def _text(content: Content) -> str:
    return "\n".join(part.content_text() for part in content)


def _function_call(item: FunctionCall, said: _Conversation, _: str) -> None:
    said.call(item.call_id, item.name, item.arguments)


def _custom_call(item: CustomToolCall, said: _Conversation, _: str) -> None:
    arguments = json.dumps({"input": item.input or ""}, ensure_ascii=False)
    said.call(item.call_id, item.name, arguments)


def _output(item: ToolCallOutput, said: _Conversation, where: str) -> None:
    if item.call_id not in said.call_ids:
        message = f"No tool call found for function call output with call_id {item.call_id[:100]}."
        raise BadRequestError(message, f"{where}.call_id")
    said.results[item.call_id] = Message("tool", _text(item.output), call_id=item.call_id)


def _mcp_call(item: McpCall, said: _Conversation, _: str) -> None:
    name = qualified_tool_name(item.server_label, item.name, said.tools)
    arguments = item.arguments or "{}"
    said.call(item.id, name, arguments)
    if item.error is not None:
        result = json.dumps({"ok": False, "error": item.error})
    elif item.output is None:
        result = interrupted_result(item.id, name, arguments).for_model()
    else:
        result = item.output
    said.results[item.id] = Message("tool", result, call_id=item.id)


def _thought(item: ReasoningItem, said: _Conversation, _: str) -> None:
    if (said.text or said.calls) and said.answered:
        said.close()  # a turn begins with its thoughts
    said.thought += "".join(part.text or "" for part in item.content or item.summary or [])


def _silent(_: Item, __: _Conversation, ___: str) -> None:
    """Read nothing: what stands in this item is not for the model."""


ITEM_HANDLERS: Mapping[type[Item], Callable[[Any, _Conversation, str], None]] = {
    McpApprovalRequest: _silent,
    McpApprovalResponse: _silent,
    ToolCallOutput: _output,
    CustomToolCall: _custom_call,
    FunctionCall: _function_call,
    McpCall: _mcp_call,
    MessageItem: _message,
    ReasoningItem: _thought,
    McpListTools: _silent,
}


def qualified_tool_name(label: str | None, name: str, tools: frozenset[str]) -> str:
    """Return the name under which the model knows the tool of an item."""
    full = f"{label}__{name}"
    if label in (None, BUILTIN_SERVER_LABEL) or (name in tools and full not in tools):
        return name
    return full


def interrupted_result(call_id: str, name: str, arguments: str) -> ToolResult:
    """Return what is to be known of a call whose end nobody saw."""
    fault = ToolCallError("cancelled", "This call was cut off; what became of it isn't known.")
    fault.hint = "Check what became of it before doing it again."
    return ToolResult(call_id, name, arguments, error=fault, effect="unknown")


def succeeded_tools(
    items: Iterable[Json], tools: frozenset[str], servers: Iterable[str]
) -> frozenset[str]:
    """Return the server's tools that have succeeded in a kept conversation.

    `servers` are its MCP servers; a server that a request brought doesn't count.
    """
    labels = {BUILTIN_SERVER_LABEL, *servers}
    ours = (item for item in items if SERVER_MADE in item and item["type"] == "mcp_call")
    return frozenset(
        qualified_tool_name(item["server_label"], item["name"], tools)
        for item in ours
        if item["status"] == "completed" and item["server_label"] in labels
    )


def listed_servers(items: Iterable[Json]) -> frozenset[str]:
    """Return the MCP servers whose tools the conversation lists already."""
    return frozenset(item["server_label"] for item in items if item.get("type") == "mcp_list_tools")
