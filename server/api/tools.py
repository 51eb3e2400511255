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
from falsework.server.api.validation import TYPE, WireModel, select, validate
from falsework.server.errors import (
    MAX_QUOTED,
    BadRequestError,
    InvalidSchemaError,
)
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


def parse_tool_params(tools: object, kinds: Mapping[str, type[WireModel]]) -> list[WireModel]:
    """Return the tools of a request by their types: those of the protocol, and the server's."""
    if not isinstance(tools, list):
        raise BadRequestError("Invalid 'tools': Input should be a valid list.", "tools", TYPE)
    return [_tool_param(tool, i, {**kinds, **SERVER_TOOL_PARAMS}) for i, tool in enumerate(tools)]


def _tool_param(tool: object, position: int, kinds: Mapping[str, type[WireModel]]) -> WireModel:
    param = f"tools[{position}]"
    if not isinstance(tool, dict):
        raise BadRequestError(f"Invalid '{param}': Input should be an object.", param, TYPE)
    kind = tool.get("type")
    if isinstance(kind, str) and kind not in kinds:
        raise unsupported_tool(kind, position)
    return validate(select(kinds, tool, f"{param}.type"), tool, ("tools", position))


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


def build_tools(
    functions: Sequence[FunctionDefinition | None],
    server_tools: Mapping[int, tuple[Tool, ...]],
    limits: Settings,
) -> tuple[Tool, ...]:
    """Return the tools that the model is offered.

    `functions` has None at each position of `server_tools`, which may stand for several.
    """
    if len(functions) > limits.max_tools:
        raise BadRequestError(
            f"Invalid 'tools': array too long. Expected an array with maximum length "
            f"{limits.max_tools}, but got an array with length {len(functions)} instead.",
            "tools",
            "array_above_max_length",
        )
    tools: list[Tool] = []
    for position, function in enumerate(functions):
        if function is None and position not in server_tools:
            raise unsupported_tool("mcp", position)  # no server tools where none were resolved
        tools += [_build(function, limits)] if function else server_tools[position]
    _refuse_duplicates(tools)
    return tuple(tools)


def _build(function: FunctionDefinition, limits: Settings) -> Tool:
    _check_name(function.name, f"{function.param}.name")
    if function.custom:
        return _custom_tool(function, function.custom, limits)
    parameters = function.parameters or NO_ARGUMENTS
    param = f"{function.param}.parameters"
    tool = Tool(function.name, function.description or "", parameters, param, function.strict)
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
    return Tool(function.name, described, schema, text.param, custom=True, grammar=grammar)


def _check_name(name: str, param: str) -> None:
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
                f"{tool.where.removesuffix('.parameters')}.name",
                "invalid_value",
            )
        seen.add(tool.name)
