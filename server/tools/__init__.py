from falsework.server.tools.registry import ToolRegistry, open_registry
from falsework.server.tools.request_mcp_servers import McpServerRef, forbidden_headers
from falsework.server.tools.tool import ServerTool
from falsework.server.tools.tool_call import ToolCall
from falsework.server.tools.tool_run import ToolRun

__all__ = [
    "McpServerRef",
    "ServerTool",
    "ToolCall",
    "ToolRegistry",
    "ToolRun",
    "forbidden_headers",
    "open_registry",
]
