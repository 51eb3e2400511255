"""The client's tools of a response: what the model is told of them, and how a call is named.

The model knows functions alone. A namespace's are known by both names together; a shell, a patch
and a tool search are functions whose schema is written here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from falsework.server.api.responses.tool_schema import (
    MEMBERS,
    ApplyPatchTool,
    CustomTool,
    FunctionTool,
    LocalShellTool,
    NamespaceTool,
    ShellTool,
    ToolSearchTool,
)
from falsework.server.api.tools import (
    CustomText,
    FilteredParam,
    FunctionDefinition,
    GrammarDefinition,
    check_name,
    leave_out_type,
    parse_tool_params,
)
from falsework.server.api.validation import ParamPath, WireModel, param_path
from falsework.server.errors import missing_parameter
from falsework.server.types import Json

CallKind = Literal["apply_patch", "custom", "function", "local_shell", "shell", "tool_search"]


@dataclass(frozen=True)
class CallName:
    """How the calls of a tool are shown: of what kind, by what name, in which namespace."""

    kind: CallKind
    name: str
    namespace: str | None = None


@dataclass(frozen=True)
class ClientTool:
    """A tool of the client's: what the model is told, and how its calls are shown."""

    function: FunctionDefinition
    call: CallName


def _object(required: Sequence[str], **properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT: Json = {"type": "string"}
_MILLISECONDS: Json = {"type": "integer", "minimum": 0, "description": "Milliseconds."}

LOCAL_SHELL = _object(
    ["command"],
    command={"type": "array", "items": _TEXT, "minItems": 1, "description": "Program, arguments."},
    working_directory=_TEXT,
    timeout_ms=_MILLISECONDS,
)
SHELL = _object(
    ["commands"],
    commands={"type": "array", "items": _TEXT, "minItems": 1, "description": "Shell commands."},
    timeout_ms=_MILLISECONDS,
    max_output_length={"type": "integer", "minimum": 0, "description": "Characters."},
)
_DIFF: Json = {"type": "string", "description": "A V4A diff; of a new file, each line after a +."}
APPLY_PATCH: Json = _object(
    ["operation"],
    operation={
        "anyOf": [
            _object(
                ["type", "path", "diff"],
                type={"enum": ["create_file", "update_file"]},
                path=_TEXT,
                diff=_DIFF,
            ),
            _object(["type", "path"], type={"enum": ["delete_file"]}, path=_TEXT),
        ]
    },
)
TOOL_SEARCH = _object(["query"], query=_TEXT)

_DESCRIPTIONS: Mapping[str, str] = {
    "apply_patch": "Creates, updates or deletes a file.",
    "local_shell": "Runs a command on the user's machine.",
    "shell": "Runs shell commands on the user's machine.",
    "tool_search": "Searches for further tools.",
}


def client_tools(tool: WireModel, at: ParamPath) -> list[ClientTool] | None:
    """Return a tool of the request as the client's; none where it is left out.

    Return None for a tool that the server runs. `at` is where the tool stands in the request.
    """
    match tool:
        case FilteredParam():
            return None
        case NamespaceTool():
            return list(_members(tool, at))
        case FunctionTool() | CustomTool():
            return [_named(tool, at)]
    built_in = _built_in(tool, at)
    return [built_in] if built_in else []


def _members(space: NamespaceTool, at: ParamPath) -> Iterator[ClientTool]:
    check_name(space.name, f"{param_path(at)}.name")
    inner = (*at, "tools")
    for i, member in enumerate(parse_tool_params(space.tools, MEMBERS, inner)):
        match member:
            case FunctionTool() | CustomTool():
                yield _named(member, (*inner, i), space.name)
            case FilteredParam():
                leave_out_type(str(space.tools[i]["type"]), param_path((*inner, i)))


def _named(
    tool: FunctionTool | CustomTool, at: ParamPath, namespace: str | None = None
) -> ClientTool:
    param = param_path(at)
    match tool:
        case FunctionTool():
            function = FunctionDefinition(
                tool.name,
                tool.description,
                tool.parameters,
                param,
                strict=bool(tool.strict),
                namespace=namespace,
            )
            return ClientTool(function, CallName("function", tool.name, namespace))
        case CustomTool():
            custom = _custom_text(tool, param)
            function = FunctionDefinition(
                tool.name, tool.description, None, param, custom=custom, namespace=namespace
            )
            return ClientTool(function, CallName("custom", tool.name, namespace))


def _built_in(tool: WireModel, at: ParamPath) -> ClientTool | None:
    """Return a tool whose schema is written here; None for one that nobody here can run."""
    match tool:
        case LocalShellTool():
            return _described("local_shell", LOCAL_SHELL, at)
        case ShellTool(environment=where) if where is None or where.type == "local":
            return _described("shell", SHELL, at)
        case ApplyPatchTool():
            return _described("apply_patch", APPLY_PATCH, at)
        case ToolSearchTool(execution="client"):
            schema = tool.parameters or TOOL_SEARCH
            return _described("tool_search", schema, at, tool.description)
        case ShellTool() | ToolSearchTool():
            leave_out_type(tool.type, param_path(at))
    return None


def _described(
    kind: CallKind, schema: Json, at: ParamPath, description: str | None = None
) -> ClientTool:
    described = description or _DESCRIPTIONS[kind]
    function = FunctionDefinition(kind, described, schema, param_path(at))
    return ClientTool(function, CallName(kind, kind))


def _custom_text(tool: CustomTool, param: str) -> CustomText:
    if tool.format is None or tool.format.type == "text":
        return CustomText()
    for field in ("definition", "syntax"):
        if getattr(tool.format, field) is None:
            raise missing_parameter(f"{param}.format.{field}")
    grammar = GrammarDefinition(
        definition=tool.format.definition or "", syntax=tool.format.syntax or "lark"
    )
    return CustomText(grammar, f"{param}.format.definition")
