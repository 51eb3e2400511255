"""Which tools the reply may call, has to call, or may not: tool_choice of every protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from falsework.grammars.events import Tool
from falsework.grammars.tool_choice import ToolChoice
from falsework.server.api.tools import LeftOutTool
from falsework.server.api.validation import WireModel
from falsework.server.errors import MAX_QUOTED, BadRequestError, unsupported_value

PARAM = "tool_choice"

AllowedToolsMode = Literal["auto", "required"]


@dataclass(frozen=True)
class FunctionRef:
    """A tool that is named; `param` is the field that names it. None where none is."""

    name: str | None
    param: str


@dataclass(frozen=True)
class OfferedTools:
    """What tool_choice chooses from; `left_out` are the types of tools that can't be run here."""

    tools: Sequence[Tool]
    left_out: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tools: Sequence[Tool], params: Sequence[WireModel]) -> "OfferedTools":
        """Return the tools of a request, `params` as it gave them."""
        left_out = (param.type for param in params if isinstance(param, LeftOutTool))
        return cls(tools, frozenset(left_out))


def any_tool(
    mode: Literal["auto", "none", "required"], offered: OfferedTools, *, parallel: bool
) -> ToolChoice:
    """Return the choice among all tools."""
    if mode == "required":
        _check_offered(offered)
    return ToolChoice(mode if offered.tools else "none", parallel=parallel)


def one_tool(function: FunctionRef, offered: OfferedTools) -> ToolChoice:
    """Return the choice of one tool, which has to be called once."""
    _check_offered(offered)
    return ToolChoice("required", only=frozenset({_find(function, offered)}), parallel=False)


def some_tools(
    mode: str,
    functions: Sequence[FunctionRef],
    offered: OfferedTools,
    param: str,
    *,
    parallel: bool,
) -> ToolChoice:
    """Return the choice among the tools that are named; `param` is the field that names them."""
    _check_offered(offered)
    if not functions:
        message = "Invalid value for 'tool_choice': 'allowed_tools' should name at least one tool."
        raise BadRequestError(message, param, "invalid_value")
    only = frozenset(_find(function, offered) for function in functions)
    for known in get_args(AllowedToolsMode):
        if mode == known:
            return ToolChoice(known, only=only, parallel=parallel)
    raise unsupported_value(mode, get_args(AllowedToolsMode), f"{param}.mode")


def refuse_left_out(kind: str, param: str = PARAM) -> BadRequestError:
    """Return the error for a tool_choice that needs a tool which can't be run here."""
    message = (
        f"Invalid value for 'tool_choice': it asks for '{kind[:MAX_QUOTED]}', which this server "
        "can't run."
    )
    return BadRequestError(message, param, "unsupported_tool")


def _check_offered(offered: OfferedTools) -> None:
    if offered.tools:
        return
    if offered.left_out:
        raise refuse_left_out(min(offered.left_out))
    raise BadRequestError(
        "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are "
        "specified.",
        PARAM,
    )


def _find(function: FunctionRef, offered: OfferedTools) -> str:
    name, param = function.name, function.param
    if name is None:
        message = f"Invalid '{param}': it should name a function of 'tools'."
        raise BadRequestError(message, param, "invalid_value")
    if name not in {tool.name for tool in offered.tools}:
        message = (
            f"Invalid value for 'tool_choice': the function '{name[:MAX_QUOTED]}' isn't among "
            "'tools'."
        )
        raise BadRequestError(message, param, "invalid_value")
    return name
