"""The items of a conversation, turned into messages for the prompt."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from falsework.prompts.messages import Message
from falsework.server.api.call_pairing import OrphanPolicy, pair_results
from falsework.server.api.responses.call_history import CALL_HANDLERS, content_text
from falsework.server.api.responses.conversation import ERRORS, Conversation
from falsework.server.api.responses.item_schema import (
    AdditionalTools,
    CompactionItem,
    HostedCall,
    Item,
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpListTools,
    MessageItem,
    ReasoningItem,
    parse_item,
)
from falsework.server.api.sealed import COMPACTION, REASONING, unsealed
from falsework.server.api.server_tools import BUILTIN_SERVER_LABEL
from falsework.server.api.validation import param_path
from falsework.server.errors import BadRequestError
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult
from falsework.server.types import Json

SERVER_MADE = "made_here"
"""Marks the items of a kept conversation that this server made; clients can't set it."""


def to_messages(
    items: Sequence[Json],
    instructions: str | None,
    tools: frozenset[str] = frozenset(),
    before: int = 0,
    orphans: OrphanPolicy = "refuse",
) -> tuple[Message, ...]:
    """Return the messages of a conversation; refuse an item by its place in the input.

    `tools` are the names of the server's tools, `before` is how many items aren't of the input.
    """
    conversation = Conversation(tools=tools)
    users = [i for i, item in enumerate(items, -before) if item.get("role") == "user"]
    for position, raw in enumerate(items, -before):
        at = ("previous_response_id",) if position < 0 else ("input", position)
        conversation.param, conversation.past = param_path(at), position < max(users, default=0)
        item = parse_item(raw, at)
        ITEM_HANDLERS[type(item)](item, conversation)
    conversation.close()
    messages = pair_results(conversation.entries, ERRORS, orphans)
    if not messages:
        raise BadRequestError("'input' should hold at least one message.", "input")
    head = (Message("system", instructions),) if instructions else ()
    return (*head, *messages)


def _message(item: MessageItem, conversation: Conversation) -> None:
    past = conversation.past or item.role != "user"
    text = content_text(item.content, f"{conversation.param}.content", past=past)
    if item.role == "assistant":
        if conversation.calls or conversation.text:
            conversation.close()
        conversation.text = text
        return
    conversation.add(Message("user" if item.role == "user" else "system", text))


def _mcp_call(item: McpCall, conversation: Conversation) -> None:
    name = qualified_tool_name(item.server_label, item.name, conversation.tools)
    arguments = item.arguments or "{}"
    conversation.call(item.id, name, arguments)
    if item.error is not None:
        result = json.dumps({"ok": False, "error": item.error})
    elif item.output is None:
        result = interrupted_result(item.id, name, arguments).for_model()
    else:
        result = item.output
    conversation.result(item.id, result)


def _reasoning(item: ReasoningItem, conversation: Conversation) -> None:
    if (conversation.text or conversation.calls) and conversation.answered:
        conversation.close()  # a turn begins with its reasoning
    said = "".join(part.text or "" for part in item.content or ())
    said = said or unsealed(item.encrypted_content or "", REASONING) or ""
    conversation.reasoning += said or "".join(part.text or "" for part in item.summary or ())


def _compaction(item: CompactionItem, conversation: Conversation) -> None:
    text = unsealed(item.encrypted_content, COMPACTION)
    if text is None:
        raise BadRequestError(
            "This compaction was made by another server, which alone can read it: send the "
            "conversation itself.",
            f"{conversation.param}.encrypted_content",
            "invalid_value",
        )
    conversation.add(Message("user", text))


def _silent(_: Item, __: Conversation) -> None:
    """Read nothing: what stands in this item is not for the model."""


ITEM_HANDLERS: Mapping[type[Item], Callable[[Any, Conversation], None]] = {
    **CALL_HANDLERS,
    AdditionalTools: _silent,
    CompactionItem: _compaction,
    HostedCall: _silent,
    McpApprovalRequest: _silent,
    McpApprovalResponse: _silent,
    McpCall: _mcp_call,
    McpListTools: _silent,
    MessageItem: _message,
    ReasoningItem: _reasoning,
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
