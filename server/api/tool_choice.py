"""Which tools the reply may call, has to call, or may not: tool_choice of every protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from falsework.grammars.events import Tool
from falsework.grammars.tool_choice import ToolChoice
from falsework.server.errors import MAX_QUOTED, BadRequestError, unsupported_value

PARAM = "tool_choice"

AllowedToolsMode = Literal["auto", "required"]


@dataclass(frozen=True)
class FunctionRef:
    """A tool that is named; `param` is the field that names it. None where none is."""

    name: str | None
    param: str


def any_tool(
    mode: Literal["auto", "none", "required"], tools: Sequence[Tool], *, parallel: bool
) -> ToolChoice:
    """Return the choice among all tools."""
    if mode == "required":
        _check_offered(tools)
    return ToolChoice(mode if tools else "none", parallel=parallel)


def one_tool(function: FunctionRef, tools: Sequence[Tool]) -> ToolChoice:
    """Return the choice of one tool, which has to be called once."""
    _check_offered(tools)
    return ToolChoice("required", only=frozenset({_find(function, tools)}), parallel=False)


def some_tools(
    mode: str,
    functions: Sequence[FunctionRef],
    tools: Sequence[Tool],
    param: str,
    *,
    parallel: bool,
) -> ToolChoice:
    """Return the choice among the tools that are named; `param` is the field that names them."""
    _check_offered(tools)
    if not functions:
        message = "Invalid value for 'tool_choice': 'allowed_tools' should name at least one tool."
        raise BadRequestError(message, param, "invalid_value")
    only = frozenset(_find(function, tools) for function in functions)
    for known in get_args(AllowedToolsMode):
        if mode == known:
            return ToolChoice(known, only=only, parallel=parallel)
    raise unsupported_value(mode, get_args(AllowedToolsMode), f"{param}.mode")


def _check_offered(tools: Sequence[Tool]) -> None:
    if not tools:
        raise BadRequestError(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are "
            "specified.",
            PARAM,
        )


def _find(function: FunctionRef, tools: Sequence[Tool]) -> str:
    name, param = function.name, function.param
    if name is None:
        message = f"Invalid '{param}': it should name a function of 'tools'."
        raise BadRequestError(message, param, "invalid_value")
    if name not in {tool.name for tool in tools}:
        message = (
            f"Invalid value for 'tool_choice': the function '{name[:MAX_QUOTED]}' isn't among "
            "'tools'."
        )
        raise BadRequestError(message, param, "invalid_value")
    return name
