"""The tools that a request offers, and which of them the reply may call."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from falsework.grammars.events import Tool
from falsework.grammars.tool_choice import ToolChoice
from falsework.server.api.chat.schema import ToolChoiceParam, ToolParam, ToolRef
from falsework.server.api.server_tools import NO_SERVER_TOOLS, ServerTools
from falsework.server.errors import BadRequestError, InvalidSchemaError
from falsework.server.settings import Settings

TOOL_NAME_PATTERN = re.compile(r"[a-zA-Z0-9_-]+")
MAX_TOOL_NAME = 64

NO_ARGUMENTS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}
"""The schema of a tool that says nothing about its arguments: there are none."""

AllowedToolsMode = Literal["auto", "required"]


def parse_tools(
    tools: Sequence[ToolParam], limits: Settings, served: ServerTools = NO_SERVER_TOOLS
) -> tuple[Tool, ...]:
    """Return the tools of a request, their names and sizes checked, and those that are served."""
    if len(tools) > limits.max_tools:
        raise BadRequestError(
            f"Invalid 'tools': array too long. Expected an array with maximum length "
            f"{limits.max_tools}, but got an array with length {len(tools)} instead.",
            "tools",
            "array_above_max_length",
        )
    named = tuple(
        one
        for i, tool in enumerate(tools)
        for one in (
            served.by_position[i]
            if i in served.by_position
            else (_tool(tool, f"tools[{i}]", limits),)
        )
    )
    _refuse_duplicates(named)
    return named


def _tool(tool: ToolParam, where: str, limits: Settings) -> Tool:
    function = tool.function
    if tool.type != "function":
        raise BadRequestError(
            f"Unsupported tool type: '{tool.type[:100]}'. Supported are 'function', and 'mcp' and "
            "'server_tool' for tools that this server runs.",
            f"{where}.type",
            "invalid_value",
        )
    if function is None:
        missing = f"{where}.function"
        raise BadRequestError(
            f"Missing required parameter: '{missing}'.", missing, "missing_required_parameter"
        )
    _check_name(function.name, f"{where}.function.name")
    parameters = function.parameters or NO_ARGUMENTS
    schema_where = f"{where}.function.parameters"
    check_schema_size(parameters, schema_where, limits, InvalidSchemaError.code)
    return Tool(function.name, function.description or "", parameters, schema_where)


def _check_name(name: str, where: str) -> None:
    if not TOOL_NAME_PATTERN.fullmatch(name):
        raise BadRequestError(
            f"Invalid '{where}': string does not match pattern. Expected a string that matches "
            "the pattern '^[a-zA-Z0-9_-]+$'.",
            where,
            "invalid_value",
        )
    if len(name) > MAX_TOOL_NAME:
        raise BadRequestError(
            f"Invalid '{where}': string too long. Expected a string with maximum length "
            f"{MAX_TOOL_NAME}, but got a string with length {len(name)} instead.",
            where,
            "string_above_max_length",
        )


def check_schema_size(
    schema: Mapping[str, Any], where: str, limits: Settings, code: str | None
) -> None:
    """Refuse a schema that is larger than the operator allows."""
    size = len(json.dumps(schema))
    if size > limits.max_schema_bytes:
        raise InvalidSchemaError(
            f"Invalid '{where}': the schema has {size} bytes, more than the "
            f"{limits.max_schema_bytes} that this server allows.",
            where,
            code,
        )


def _refuse_duplicates(tools: Sequence[Tool]) -> None:
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            where = tool.where.removesuffix(".parameters")
            raise BadRequestError(
                f"Invalid 'tools': two tools are named '{tool.name}'. Tool names must be unique.",
                f"{where}.name",
                "invalid_value",
            )
        seen.add(tool.name)


def parse_tool_choice(
    choice: ToolChoiceParam | None, tools: Sequence[Tool], *, parallel: bool
) -> ToolChoice:
    """Return what tool_choice means for these tools."""
    if choice is None:
        return ToolChoice("auto" if tools else "none", parallel=parallel)
    if choice.type not in TOOL_CHOICE_PARSERS:
        known = ", ".join(f"'{kind}'" for kind in TOOL_CHOICE_PARSERS)
        raise BadRequestError(
            f"Invalid value: '{choice.type[:100]}'. Supported values are: {known}.",
            "tool_choice",
            "invalid_value",
        )
    if not tools and choice.type not in ("none", "auto"):
        raise BadRequestError(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are "
            "specified.",
            "tool_choice",
        )
    return TOOL_CHOICE_PARSERS[choice.type](choice, tools, parallel)


def _none(_: ToolChoiceParam, __: Sequence[Tool], parallel: bool) -> ToolChoice:
    return ToolChoice("none", parallel=parallel)


def _auto(_: ToolChoiceParam, tools: Sequence[Tool], parallel: bool) -> ToolChoice:
    return ToolChoice("auto" if tools else "none", parallel=parallel)


def _required(_: ToolChoiceParam, __: Sequence[Tool], parallel: bool) -> ToolChoice:
    return ToolChoice("required", parallel=parallel)


def _function(choice: ToolChoiceParam, tools: Sequence[Tool], _: bool) -> ToolChoice:
    reference = ToolRef(type="function", function=choice.function)
    name = _meant(reference, tools, "tool_choice")
    return ToolChoice("required", only=frozenset({name}), parallel=False)


def _allowed(choice: ToolChoiceParam, tools: Sequence[Tool], parallel: bool) -> ToolChoice:
    allowed = choice.allowed_tools
    if allowed is None or not allowed.tools:
        raise BadRequestError(
            "Invalid value for 'tool_choice': 'allowed_tools' should name at least one tool.",
            "tool_choice.allowed_tools",
            "invalid_value",
        )
    where = "tool_choice.allowed_tools.tools"
    only = frozenset(_meant(tool, tools, f"{where}[{i}]") for i, tool in enumerate(allowed.tools))
    return ToolChoice(_allowed_mode(allowed.mode), only=only, parallel=parallel)


def _allowed_mode(mode: str) -> AllowedToolsMode:
    for known in get_args(AllowedToolsMode):
        if mode == known:
            return known  # type: ignore[no-any-return]  # get_args forgets that they are modes
    raise BadRequestError(
        f"Invalid value: '{mode[:100]}'. Supported values are: 'auto', 'required'.",
        "tool_choice.allowed_tools.mode",
        "invalid_value",
    )


def _meant(reference: ToolRef, tools: Sequence[Tool], where: str) -> str:
    name = reference.function.name if reference.function and reference.type == "function" else None
    if name is None:
        raise BadRequestError(
            f"Invalid '{where}': it should name a function of 'tools'.", where, "invalid_value"
        )
    if name not in {tool.name for tool in tools}:
        raise BadRequestError(
            f"Invalid value for 'tool_choice': the function '{name[:100]}' isn't among 'tools'.",
            where,
            "invalid_value",
        )
    return name


TOOL_CHOICE_PARSERS: Mapping[str, Callable[[ToolChoiceParam, Sequence[Tool], bool], ToolChoice]] = {
    "allowed_tools": _allowed,
    "auto": _auto,
    "function": _function,
    "none": _none,
    "required": _required,
}
