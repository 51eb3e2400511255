"""The items of a conversation, turned into messages for the prompt."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from falsework.grammars.events import Call
from falsework.prompts.messages import Message
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
from falsework.server.api.validation import param_path
from falsework.server.errors import BadRequestError
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult
from falsework.server.types import Json

SERVER_MADE = "made_here"
"""Marks the items of a kept conversation that this server made; clients can't set it."""


@dataclass
class _Conversation:
    """Messages so far; calls and reasoning wait for the assistant's message that holds them."""

    messages: list[Message] = field(default_factory=list)
    reasoning: str = ""
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)
    results: dict[str, Message] = field(default_factory=dict)
    tools: frozenset[str] = frozenset()

    @property
    def answered(self) -> bool:
        """Whether each call of the turn has its result."""
        return all(call_id in self.results for call_id in self.call_ids)

    def close(self, *, param: str = "input") -> None:
        """End the assistant's turn: its text, its calls, and a result for each."""
        if not (self.text or self.calls or self.reasoning):
            return
        missing = [call_id for call_id in self.call_ids if call_id not in self.results]
        if missing:
            message = f"No tool output found for function call {missing[0][:100]}."
            raise BadRequestError(message, param)
        calls, call_ids = tuple(self.calls), tuple(self.call_ids)
        turn = Message("assistant", self.text, calls, call_ids, reasoning=self.reasoning)
        self.messages += [turn, *(self.results[call_id] for call_id in call_ids)]
        self.reasoning, self.text = "", ""
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
    conversation = _Conversation(tools=tools)
    for position, raw in enumerate(items, -before):
        at = ("previous_response_id",) if position < 0 else ("input", position)
        item = parse_item(raw, at)
        ITEM_HANDLERS[type(item)](item, conversation, param_path(at))
    conversation.close()
    if not conversation.messages:
        raise BadRequestError("'input' should hold at least one message.", "input")
    head = (Message("system", instructions),) if instructions else ()
    return (*head, *conversation.messages)


def _message(item: MessageItem, conversation: _Conversation, param: str) -> None:
    text = _text(item.content)
    if item.role == "assistant":
        if conversation.calls or conversation.text:
            conversation.close(param=param)
        conversation.text = text
        return
    conversation.close(param=param)
    conversation.messages.append(Message("user" if item.role == "user" else "system", text))


def _text(content: Content) -> str:
    return "\n".join(part.content_text() for part in content)


def _function_call(item: FunctionCall, conversation: _Conversation, _: str) -> None:
    conversation.call(item.call_id, item.name, item.arguments)


def _custom_call(item: CustomToolCall, conversation: _Conversation, _: str) -> None:
    arguments = json.dumps({"input": item.input or ""}, ensure_ascii=False)
    conversation.call(item.call_id, item.name, arguments)


def _output(item: ToolCallOutput, conversation: _Conversation, param: str) -> None:
    if item.call_id not in conversation.call_ids:
        message = f"No tool call found for function call output with call_id {item.call_id[:100]}."
        raise BadRequestError(message, f"{param}.call_id")
    conversation.results[item.call_id] = Message("tool", _text(item.output), call_id=item.call_id)


def _mcp_call(item: McpCall, conversation: _Conversation, _: str) -> None:
    name = qualified_tool_name(item.server_label, item.name, conversation.tools)
    arguments = item.arguments or "{}"
    conversation.call(item.id, name, arguments)
    if item.error is not None:
        result = json.dumps({"ok": False, "error": item.error})
    elif item.output is None:
        result = interrupted_result(item.id, name, arguments).for_model()
    else:
        result = item.output
    conversation.results[item.id] = Message("tool", result, call_id=item.id)


def _reasoning(item: ReasoningItem, conversation: _Conversation, _: str) -> None:
    if (conversation.text or conversation.calls) and conversation.answered:
        conversation.close()  # a turn begins with its reasoning
    conversation.reasoning += "".join(
        part.text or "" for part in item.content or item.summary or []
    )


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
    ReasoningItem: _reasoning,
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
    error = ToolCallError("cancelled", "This call was cut off; what became of it isn't known.")
    error.hint = "Check what became of it before doing it again."
    return ToolResult(call_id, name, arguments, error=error, effect="unknown")


def succeeded_tools(
    items: Iterable[Json], tools: frozenset[str], servers: Iterable[str]
) -> frozenset[str]:
    """Return the server's tools that have succeeded in a kept conversation.

    `servers` are its MCP servers; a server that a request brought doesn't count.
    """
    labels = {BUILTIN_SERVER_LABEL, *servers}
    own = (item for item in items if SERVER_MADE in item and item["type"] == "mcp_call")
    return frozenset(
        qualified_tool_name(item["server_label"], item["name"], tools)
        for item in own
        if item["status"] == "completed" and item["server_label"] in labels
    )


def listed_servers(items: Iterable[Json]) -> frozenset[str]:
    """Return the MCP servers whose tools the conversation lists already."""
    return frozenset(item["server_label"] for item in items if item.get("type") == "mcp_list_tools")
