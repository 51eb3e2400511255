"""The tools that a request offers: functions of the client's, and tools that the server runs.

Each protocol says where its fields stand; what is checked, and in which words, is said here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from falsework.grammars.events import Tool
from falsework.grammars.text_grammar import TextGrammar
from falsework.server.api import tool_filters
from falsework.server.api.common_schema import check_schema_size
from falsework.server.api.validation import (
    TYPE,
    ParamPath,
    WireModel,
    param_path,
    select,
    validate,
)
from falsework.server.errors import (
    MAX_QUOTED,
    BadRequestError,
    InvalidSchemaError,
)
from falsework.server.generation import TOOL_LEFT_OUT
from falsework.server.observability import warn_client
from falsework.server.settings import Settings
from falsework.server.types import Json

TOOL_NAME_PATTERN = re.compile(r"[a-zA-Z0-9_-]+")
MAX_TOOL_NAME = 64

NO_ARGUMENTS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}
"""The schema of a tool that says nothing about its arguments: there are none."""

FREE_TEXT_SCHEMA: Json = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""The arguments of a custom tool: its text is the one argument of a function."""


class FilteredParam(WireModel):
    """Tools that the server runs: which of them are allowed, and which need approval."""

    allowed_tools: tool_filters.AllowedToolsField | None = None
    require_approval: tool_filters.RequireApprovalField | None = None


class McpServerParam(FilteredParam):
    """Tools of an MCP server: one that this server knows, or one that the request brings."""

    type: Literal["mcp"]
    server_label: str | None = None
    server_url: str | None = Field(default=None, pattern=r"^https?://[^/?#@\s]+(/|$)")
    authorization: str | None = Field(default=None, repr=False)
    headers: dict[str, str] | None = Field(default=None, repr=False)


class ServerToolParam(FilteredParam):
    """A tool that this server has, by its name."""

    type: Literal["server_tool"]
    name: str | None = None


SERVER_TOOL_PARAMS: Mapping[str, type[WireModel]] = {
    "mcp": McpServerParam,
    "server_tool": ServerToolParam,
}


class LeftOutTool(WireModel):
    """A tool of a type that nobody here can run, hosted by somebody else: it is left out."""

    type: str


def parse_tool_params(
    tools: object, kinds: Mapping[str, type[WireModel]], at: ParamPath = ("tools",)
) -> list[WireModel]:
    """Return the tools of a request by their types: those of the protocol, and the server's.

    A tool of a type that isn't known is left out, and the client is warned.
    """
    if not isinstance(tools, list):
        param = param_path(at)
        raise BadRequestError(f"Invalid '{param}': Input should be a valid list.", param, TYPE)
    known = {**kinds, **SERVER_TOOL_PARAMS}
    return [_tool_param(tool, (*at, i), known) for i, tool in enumerate(tools)]


def _tool_param(tool: object, at: ParamPath, kinds: Mapping[str, type[WireModel]]) -> WireModel:
    param = param_path(at)
    if not isinstance(tool, dict):
        raise BadRequestError(f"Invalid '{param}': Input should be an object.", param, TYPE)
    kind = tool.get("type")
    if isinstance(kind, str) and kind not in kinds:
        return leave_out_type(kind, param)
    return validate(select(kinds, tool, f"{param}.type"), tool, at)


def leave_out_type(kind: str, param: str) -> LeftOutTool:
    """Return what stands for a tool that can't be run here, and warn the client."""
    warn_client(
        TOOL_LEFT_OUT,
        f"This server can't run tools of type '{kind[:MAX_QUOTED]}': {param} is left out.",
        f"{param}.type",
    )
    return LeftOutTool(type=kind)


def unsupported_tool(kind: str, position: int) -> BadRequestError:
    """Return the error for a tool of a type that nobody here runs."""
    message = (
        f"Unsupported tool type: '{kind[:MAX_QUOTED]}'. Supported are 'function', and 'mcp' and "
        "'server_tool' for tools that this server runs."
    )
    return BadRequestError(message, f"tools[{position}].type", "invalid_value")


class GrammarDefinition(WireModel):
    """The grammar of a custom tool's text."""

    definition: str
    syntax: Literal["lark", "regex"]


@dataclass(frozen=True)
class CustomText:
    """What the text of a custom tool may be: anything, or what a grammar says."""

    grammar: GrammarDefinition | None = None
    param: str = ""
    """The field of the grammar's definition."""


@dataclass(frozen=True)
class FunctionDefinition:
    """A function of the client's, whichever protocol spelled it; `param` is the field it is in."""

    name: str
    description: str | None
    parameters: Mapping[str, Any] | None
    param: str
    strict: bool = False
    custom: CustomText | None = None
    schema_field: str = "parameters"
    """What the protocol calls the field of the schema."""
    namespace: str | None = None
    """The group that the function is in; the model knows it by both names together."""

    @property
    def full_name(self) -> str:
        """The name that the model knows."""
        return namespaced(self.namespace, self.name)


def namespaced(namespace: str | None, name: str) -> str:
    """Return the name by which the model knows a function of a namespace."""
    if not namespace:
        return name
    return namespace + ("" if namespace.endswith("__") else "__") + name


def build_tools(
    functions: Sequence[Sequence[FunctionDefinition] | None],
    server_tools: Mapping[int, tuple[Tool, ...]],
    limits: Settings,
) -> tuple[Tool, ...]:
    """Return the tools that the model is offered.

    `functions` are those of each tool of the request: several for a namespace, none for a tool that
    is left out, and None at each position of `server_tools`.
    """
    if len(functions) > limits.max_tools:
        raise BadRequestError(
            f"Invalid 'tools': array too long. Expected an array with maximum length "
            f"{limits.max_tools}, but got an array with length {len(functions)} instead.",
            "tools",
            "array_above_max_length",
        )
    tools: list[Tool] = []
    for position, given in enumerate(functions):
        if given is None and position not in server_tools:
            raise unsupported_tool("mcp", position)  # no server tools where none were resolved
        if given is None:
            tools += server_tools[position]
        else:
            tools += [_build(function, limits) for function in given]
    _refuse_duplicates(tools)
    return tuple(tools)


def _build(function: FunctionDefinition, limits: Settings) -> Tool:
    check_name(function.name, f"{function.param}.name")
    if function.custom:
        return _custom_tool(function, function.custom, limits)
    parameters = function.parameters or NO_ARGUMENTS
    param = f"{function.param}.{function.schema_field}"
    tool = Tool(function.full_name, function.description or "", parameters, param, function.strict)
    check_schema_size(tool.schema_text, param, limits, InvalidSchemaError.code)
    return tool


def _custom_tool(function: FunctionDefinition, text: CustomText, limits: Settings) -> Tool:
    """Return a custom tool as a function whose one argument is its text.

    A regex is the pattern of that argument. Text of a Lark grammar can't be said within JSON.
    """
    value: Json = {"type": "string"}
    described, grammar = function.description or "", None
    if text.grammar and text.grammar.syntax == "regex":
        value["pattern"] = f"^(?:{text.grammar.definition})$"
    elif text.grammar:
        grammar = TextGrammar("lark", (text.grammar.definition,), text.param)
        described += f"\n\nIts arguments are no JSON, but text of this grammar:\n{grammar.texts[0]}"
    schema = {**FREE_TEXT_SCHEMA, "properties": {"input": value}}
    size = {"definition": text.grammar.definition} if text.grammar else {}
    check_schema_size(json.dumps(size), text.param, limits, "invalid_grammar")
    return Tool(function.full_name, described, schema, text.param, custom=True, grammar=grammar)


def check_name(name: str, param: str) -> None:
    """Raise BadRequestError for a name that no tool may have."""
    if not TOOL_NAME_PATTERN.fullmatch(name):
        raise BadRequestError(
            f"Invalid '{param}': string does not match pattern. Expected a string that matches "
            "the pattern '^[a-zA-Z0-9_-]+$'.",
            param,
            "invalid_value",
        )
    if len(name) > MAX_TOOL_NAME:
        raise BadRequestError(
            f"Invalid '{param}': string too long. Expected a string with maximum length "
            f"{MAX_TOOL_NAME}, but got a string with length {len(name)} instead.",
            param,
            "string_above_max_length",
        )


def _refuse_duplicates(tools: Sequence[Tool]) -> None:
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise BadRequestError(
                f"Invalid 'tools': two tools are named '{tool.name}'. Tool names must be unique.",
                f"{tool.where.rpartition('.')[0]}.name",
                "invalid_value",
            )
        seen.add(tool.name)
