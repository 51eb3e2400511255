"""The items of calls of the client's tools: what an open one shows, and a finished one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from falsework.server.api.responses.client_tools import CallKind, CallName
from falsework.server.types import Json


@dataclass(frozen=True)
class CallItem:
    """One kind of item: its type, the prefix of its ids, its fields before and after the call."""

    type: str
    prefix: str
    open: Callable[[CallName], Json]
    finish: Callable[[Any], Json]
    """Takes the arguments, read from their JSON."""


def _name(call: CallName) -> Json:
    return {"name": call.name, **({"namespace": call.namespace} if call.namespace else {})}


def _local_shell(arguments: Json) -> Json:
    action = {"env": {}, "timeout_ms": None, "user": None, "working_directory": None, **arguments}
    return {"action": {"type": "exec", **action}}


def _shell(arguments: Json) -> Json:
    return {"action": {"timeout_ms": None, "max_output_length": None, **arguments}}


CALL_ITEMS: Mapping[CallKind, CallItem] = {
    "apply_patch": CallItem(
        "apply_patch_call",
        "apc_",
        lambda _: {"operation": {"type": "update_file", "path": "", "diff": ""}},
        lambda arguments: {"operation": arguments["operation"]},
    ),
    "custom": CallItem(
        "custom_tool_call",
        "ctc_",
        lambda call: {**_name(call), "input": ""},
        lambda arguments: {"input": arguments["input"]},
    ),
    "function": CallItem(
        "function_call",
        "fc_",
        lambda call: {**_name(call), "arguments": ""},
        lambda _: {},
    ),
    "local_shell": CallItem(
        "local_shell_call", "lsh_", lambda _: _local_shell({"command": []}), _local_shell
    ),
    "shell": CallItem("shell_call", "sh_", lambda _: _shell({"commands": []}), _shell),
    "tool_search": CallItem(
        "tool_search_call",
        "tsc_",
        lambda _: {"execution": "client", "arguments": {}},
        lambda arguments: {"arguments": arguments},
    ),
}
