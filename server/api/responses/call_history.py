"""Past calls of the client's tools and their results, of every kind, in a conversation."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from falsework.server.api.responses.client_tools import LOCAL_SHELL, SHELL
from falsework.server.api.responses.conversation import Conversation
from falsework.server.api.responses.item_schema import (
    ApplyPatchCall,
    ApplyPatchOutput,
    Content,
    CustomToolCall,
    FunctionCall,
    Item,
    LocalShellCall,
    LocalShellOutput,
    ShellCall,
    ShellOutput,
    ToolCallOutput,
    ToolSearchCall,
    ToolSearchOutput,
)
from falsework.server.api.tools import namespaced


def content_text(content: Content, param: str, *, past: bool) -> str:
    """Return the text of a content; `past`: what is no text is told in words."""
    return "\n".join(
        part.content_text(f"{param}[{i}]", past=past) for i, part in enumerate(content)
    )


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _function_call(item: FunctionCall, conversation: Conversation) -> None:
    conversation.call(item.call_id, namespaced(item.namespace, item.name), item.arguments)


def _custom_call(item: CustomToolCall, conversation: Conversation) -> None:
    name = namespaced(item.namespace, item.name)
    conversation.call(item.call_id, name, _dumps({"input": item.input or ""}))


def _output(item: ToolCallOutput, conversation: Conversation) -> None:
    text = content_text(item.output, f"{conversation.param}.output", past=True)
    conversation.result(item.call_id, text)


def _shell_call(item: LocalShellCall | ShellCall, conversation: Conversation) -> None:
    name, known = "local_shell", LOCAL_SHELL
    if isinstance(item, ShellCall):
        name, known = "shell", SHELL
    given = {key: item.action.get(key) for key in known["properties"]}
    said = {key: value for key, value in given.items() if value is not None}
    conversation.call(item.call_id or item.id, name, _dumps(said))


def _local_shell_output(item: LocalShellOutput, conversation: Conversation) -> None:
    text = content_text(item.output, f"{conversation.param}.output", past=True)
    conversation.result(item.call_id or item.id, text)


def _shell_output(item: ShellOutput, conversation: Conversation) -> None:
    text = item.output if isinstance(item.output, str) else _dumps(item.output)
    conversation.result(item.call_id, text)


def _patch_call(item: ApplyPatchCall, conversation: Conversation) -> None:
    conversation.call(item.call_id, "apply_patch", _dumps({"operation": item.operation}))


def _patch_output(item: ApplyPatchOutput, conversation: Conversation) -> None:
    conversation.result(item.call_id, item.output or item.status or "")


def _search_call(item: ToolSearchCall, conversation: Conversation) -> None:
    if item.call_id is not None:  # otherwise a server searched, and the model didn't ask
        conversation.call(item.call_id, "tool_search", _dumps(item.arguments or {}))


def _search_output(item: ToolSearchOutput, conversation: Conversation) -> None:
    if item.call_id is not None:
        found = [tool.get("name") or tool.get("type") for tool in item.tools or ()]
        conversation.result(item.call_id, _dumps({"tools": found}))


CALL_HANDLERS: Mapping[type[Item], Callable[[Any, Conversation], None]] = {
    ApplyPatchCall: _patch_call,
    ApplyPatchOutput: _patch_output,
    CustomToolCall: _custom_call,
    FunctionCall: _function_call,
    LocalShellCall: _shell_call,
    LocalShellOutput: _local_shell_output,
    ShellCall: _shell_call,
    ShellOutput: _shell_output,
    ToolCallOutput: _output,
    ToolSearchCall: _search_call,
    ToolSearchOutput: _search_output,
}
