"""A tool of an MCP server."""

from typing import Any

from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext, ToolDescription
from falsework.server.tools.executors.mcp import LIST_SECONDS, McpClient
from falsework.server.tools.executors.mcp_results import result_value
from falsework.server.types import Json


class McpExecutor:
    """Calls one tool of a server."""

    def __init__(self, server: McpClient, tool: str, cap: int) -> None:
        self.upstream = f"mcp:{server.name}"
        self._server = server
        self._tool = tool
        self._cap = cap

    async def describe(self) -> ToolDescription:
        """Return the server's description of the tool; raise a ToolCallError where it has none."""
        tools = await self._server.list_tools(Deadline.after(LIST_SECONDS))
        tool = tools.get(self._tool)
        if tool is None:
            raise ToolCallError("unknown_tool", f"The MCP server has no tool '{self._tool}'.")
        return ToolDescription(tool.description or "", tool.input_schema, tool.output_schema)

    async def execute(self, arguments: Json, attempt: AttemptContext) -> Any:
        """Return the structured content, or the text."""
        return result_value(await self._server.call_tool(self._tool, arguments, attempt), self._cap)
