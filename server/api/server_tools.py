"""The tools of a request that this server runs itself: asked for by name, or by MCP server."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from falsework.grammars.events import Tool
from falsework.server.api.tools import FilteredParam, McpServerParam, ServerToolParam
from falsework.server.api.validation import WireModel
from falsework.server.errors import APIError, BadRequestError, missing_parameter
from falsework.server.tools import McpServerRef, ServerTool, ToolRegistry, forbidden_headers
from falsework.server.tools.errors import ToolCallError

SERVER_LABEL_PATTERN = re.compile(r"[a-zA-Z0-9_-]{1,32}")
BUILTIN_SERVER_LABEL = "falsework"
"""The server_label of tools that the server has from nobody's MCP server."""


class ToolListingFailed(APIError):
    """An MCP server that doesn't say what it has."""

    status = 424
    type = "external_connector_error"
    code = "http_error"


@dataclass(frozen=True)
class ServerTools:
    """The server's tools of a request, by the position of what asked for them.

    `approval` are those of which a call needs the client's approval, `labels` the MCP server of
    each tool that came from one, `request_tools` those of servers that the request brought itself.
    """

    by_position: Mapping[int, tuple[Tool, ...]] = field(default_factory=dict)
    approval: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    request_tools: Mapping[str, ServerTool] = field(default_factory=dict)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all."""
        return frozenset(tool.name for tools in self.by_position.values() for tool in tools)


NO_SERVER_TOOLS = ServerTools()


async def resolve_server_tools(
    tools: Sequence[WireModel], registry: ToolRegistry, owner: str = ""
) -> ServerTools:
    """Return which of a request's tools the server runs; refuse what it doesn't have.

    `owner` is the principal, whose connections to MCP servers aren't anybody else's.
    """
    by_position: dict[int, tuple[Tool, ...]] = {}
    approval: set[str] = set()
    labels: dict[str, str] = {}
    request_tools: dict[str, ServerTool] = {}
    for position, param in enumerate(tools):
        if not isinstance(param, FilteredParam):
            continue
        param_name = f"tools[{position}]"
        found = _allowed(param, await _candidates(param, registry, param_name, owner), param_name)
        by_position[position] = tuple([await _describe(tool, param_name) for tool in found])
        approval |= {tool.name for tool in found if _needs_approval(param, tool)}
        if isinstance(param, McpServerParam):
            labels |= {tool.name: param.server_label or "" for tool in found}
            request_tools |= {tool.name: tool for tool in found if param.server_url is not None}
    return ServerTools(by_position, frozenset(approval), labels, request_tools)


def _exposed(param: ServerToolParam, registry: ToolRegistry, param_name: str) -> ServerTool:
    tool = registry.tools.get(param.name or "")
    if tool is None or not tool.entry.expose:
        known = ", ".join(tool.name for tool in registry.exposed()) or "none"
        message = f"This server has no tool '{(param.name or '')[:64]}'. It has: {known}."
        raise BadRequestError(message, f"{param_name}.name", "invalid_value")
    return tool


async def _candidates(
    param: FilteredParam, registry: ToolRegistry, param_name: str, owner: str
) -> list[ServerTool]:
    """Return the tools that a request names, by themselves or by their MCP server."""
    match param:
        case ServerToolParam():
            return [_exposed(param, registry, param_name)]
        case McpServerParam(server_label=None):
            raise missing_parameter(f"{param_name}.server_label")
        case McpServerParam(server_label=str(label), server_url=None):
            return _of_known_server(label, registry, param_name)
        case McpServerParam():
            return await _of_brought_server(param, registry, param_name, owner)
    raise AssertionError("every kind of tool has its case")


def _allowed(param: FilteredParam, tools: list[ServerTool], param_name: str) -> list[ServerTool]:
    """Return those of the tools that the request allows."""
    only = param.allowed_tools
    if only is None:
        return tools
    if unknown := set(only.tool_names or ()) - {_listed_name(param, tool) for tool in tools}:
        message = f"The MCP server has no tool '{min(unknown)[:64]}' here."
        raise BadRequestError(message, f"{param_name}.allowed_tools", "invalid_value")
    return [
        tool
        for tool in tools
        if only.matches(_listed_name(param, tool), read_only=not tool.has_side_effects)
    ]


def _of_known_server(label: str, registry: ToolRegistry, param_name: str) -> list[ServerTool]:
    if label not in registry.servers:
        known = ", ".join(registry.servers) or "none"
        message = f"This server knows no MCP server '{label[:64]}'. It knows: {known}."
        raise BadRequestError(message, f"{param_name}.server_label", "invalid_value")
    return registry.tools_of_server(label)


async def _of_brought_server(
    param: McpServerParam, registry: ToolRegistry, param_name: str, owner: str
) -> list[ServerTool]:
    label, url = param.server_label or "", param.server_url or ""
    taken = {BUILTIN_SERVER_LABEL, *registry.servers}
    if not SERVER_LABEL_PATTERN.fullmatch(label) or label in taken:
        message = "A server_label should be a name of letters, digits, - and _, and not taken."
        raise BadRequestError(message, f"{param_name}.server_label", "invalid_value")
    headers = dict(param.headers or {})
    if names := forbidden_headers(headers):
        message = f"The header '{names[0][:64]}' can't be given to an MCP server."
        raise BadRequestError(message, f"{param_name}.headers", "invalid_value")
    if param.authorization:
        headers["authorization"] = f"Bearer {param.authorization}"
    server = McpServerRef(label, url, tuple(sorted(headers.items())), owner)
    try:
        tools = await registry.request_mcp_servers.list_tools(server)
    except ToolCallError as error:
        if error.kind == "not_allowed":
            url_param = f"{param_name}.server_url"
            raise BadRequestError(error.message, url_param, "invalid_value") from error
        message = f"Error retrieving tool list from MCP server: '{label}'. {error.message}"
        raise ToolListingFailed(message, "tools") from error
    return list(tools.values())


def _listed_name(param: FilteredParam, tool: ServerTool) -> str:
    """Return the name that the listing gives a tool, which is the one that requests use."""
    if isinstance(param, McpServerParam):
        return tool.name.removeprefix(f"{param.server_label}__")
    return tool.name


def _needs_approval(param: FilteredParam, tool: ServerTool) -> bool:
    by_default = isinstance(param, McpServerParam) and param.server_url is not None
    if param.require_approval is None:
        return by_default
    return param.require_approval.requires_approval(
        _listed_name(param, tool), read_only=not tool.has_side_effects, otherwise=by_default
    )


async def _describe(tool: ServerTool, param_name: str) -> Tool:
    try:
        await tool.load_description()
    except ToolCallError as error:
        message = f"Error retrieving tool list from MCP server: '{tool.name}'. {error.message}"
        raise ToolListingFailed(message, "tools") from error
    assert tool.parameters is not None, "a described tool has parameters"
    where = f"{param_name}.parameters"
    return Tool(tool.name, tool.description, tool.parameters, where, foreign=True)
