"""The tools of a request that this server runs itself: asked for by name, or by MCP server."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from falsework.grammars.events import Tool
from falsework.server.api.chat.schema import ToolParam
from falsework.server.errors import APIError, BadRequestError
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.registry import ToolRegistry
from falsework.server.tools.request_mcp_servers import McpServerRef, forbidden_headers
from falsework.server.tools.tool import ServerTool

SERVER_TOOL_TYPES = frozenset({"mcp", "server_tool"})
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
    each tool that came from one, `guests` the tools of servers that the request brought itself.
    """

    by_position: Mapping[int, tuple[Tool, ...]] = field(default_factory=dict)
    approval: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    guests: Mapping[str, ServerTool] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """The names of all."""
        return frozenset(tool.name for tools in self.by_position.values() for tool in tools)


NO_SERVER_TOOLS = ServerTools()


async def resolve_server_tools(
    tools: Sequence[ToolParam], toolbox: ToolRegistry, owner: str = ""
) -> ServerTools:
    """Return which of a request's tools the server runs; refuse what it doesn't have.

    `owner` is the principal, whose connections to MCP servers aren't anybody else's.
    """
    found: dict[int, tuple[Tool, ...]] = {}
    approval: set[str] = set()
    labels: dict[str, str] = {}
    guests: dict[str, ServerTool] = {}
    for position, asked in enumerate(tools):
        where = f"tools[{position}]"
        if asked.type not in SERVER_TOOL_TYPES:
            continue
        meant = await _meant(asked, toolbox, where, owner)
        found[position] = tuple([await _described(tool, where) for tool in meant])
        approval |= {tool.name for tool in meant if _needs_approval(asked, tool)}
        if asked.type == "mcp":
            labels |= {tool.name: asked.server_label or "" for tool in meant}
        if asked.server_url is not None:
            guests |= {tool.name: tool for tool in meant}
    return ServerTools(found, frozenset(approval), labels, guests)


async def _meant(
    asked: ToolParam, toolbox: ToolRegistry, where: str, owner: str
) -> list[ServerTool]:
    tools = await _candidates(asked, toolbox, where, owner)
    only = asked.allowed_tools
    if only is None:
        return tools
    if strangers := set(only.tool_names or ()) - {_listed(asked, tool) for tool in tools}:
        message = f"The MCP server has no tool '{min(strangers)[:64]}' here."
        raise BadRequestError(message, f"{where}.allowed_tools", "invalid_value")
    return [
        tool
        for tool in tools
        if only.matches(_listed(asked, tool), read_only=not tool.has_side_effects)
    ]


async def _candidates(
    asked: ToolParam, toolbox: ToolRegistry, where: str, owner: str
) -> list[ServerTool]:
    if asked.type == "server_tool":
        return [_named(asked, toolbox, where)]
    if asked.server_label is None:
        missing = f"{where}.server_label"
        message = f"Missing required parameter: '{missing}'."
        raise BadRequestError(message, missing, "missing_required_parameter")
    if asked.server_url is None:
        return _of_server(asked.server_label, toolbox, where)
    return await _of_guest(asked, toolbox, where, owner)


def _named(asked: ToolParam, toolbox: ToolRegistry, where: str) -> ServerTool:
    tool = toolbox.tools.get(asked.name or "")
    if tool is None or not tool.entry.expose:
        known = ", ".join(tool.name for tool in toolbox.exposed()) or "none"
        message = f"This server has no tool '{(asked.name or '')[:64]}'. It has: {known}."
        raise BadRequestError(message, f"{where}.name", "invalid_value")
    return tool


def _of_server(label: str, toolbox: ToolRegistry, where: str) -> list[ServerTool]:
    if label not in toolbox.servers:
        known = ", ".join(toolbox.servers) or "none"
        message = f"This server knows no MCP server '{label[:64]}'. It knows: {known}."
        raise BadRequestError(message, f"{where}.server_label", "invalid_value")
    return toolbox.tools_of_server(label)


async def _of_guest(
    asked: ToolParam, toolbox: ToolRegistry, where: str, owner: str
) -> list[ServerTool]:
    label, url = asked.server_label or "", asked.server_url or ""
    if not SERVER_LABEL_PATTERN.fullmatch(label) or label in {
        BUILTIN_SERVER_LABEL,
        *toolbox.servers,
    }:
        message = "A server_label should be a name of letters, digits, - and _, and not taken."
        raise BadRequestError(message, f"{where}.server_label", "invalid_value")
    headers = dict(asked.headers or {})
    if names := forbidden_headers(headers):
        message = f"The header '{names[0][:64]}' can't be given to an MCP server."
        raise BadRequestError(message, f"{where}.headers", "invalid_value")
    if asked.authorization:
        headers["authorization"] = f"Bearer {asked.authorization}"
    try:
        tools = await toolbox.request_mcp_servers.list_tools(
            McpServerRef(label, url, tuple(sorted(headers.items())), owner)
        )
    except ToolCallError as fault:
        if fault.kind == "not_allowed":
            raise BadRequestError(fault.message, f"{where}.server_url", "invalid_value") from fault
        message = f"Error retrieving tool list from MCP server: '{label}'. {fault.message}"
        raise ToolListingFailed(message, "tools") from fault
    return list(tools.values())


def _listed(asked: ToolParam, tool: ServerTool) -> str:
    """Return the name that the listing gives a tool, which is the one that requests use."""
    return tool.name.removeprefix(f"{asked.server_label}__")


def _needs_approval(asked: ToolParam, tool: ServerTool) -> bool:
    by_default = asked.server_url is not None
    if asked.require_approval is None:
        return by_default
    return asked.require_approval.requires_approval(
        _listed(asked, tool), read_only=not tool.has_side_effects, otherwise=by_default
    )


async def _described(tool: ServerTool, where: str) -> Tool:
    try:
        await tool.load_description()
    except ToolCallError as fault:
        message = f"Error retrieving tool list from MCP server: '{tool.name}'. {fault.message}"
        raise ToolListingFailed(message, "tools") from fault
    assert tool.parameters is not None, "a described tool has parameters"
    return Tool(tool.name, tool.description, tool.parameters, f"{where}.parameters")
