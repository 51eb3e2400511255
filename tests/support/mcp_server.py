"""A real MCP server for the tests: `python mcp_server.py stdio`, or `http PORT`.

`crash` ends the process in mid-call. The schema of `scored` is what MCP_SCHEMA says.
"""

import os
import sys
import time
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tests")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def crash(marker: str) -> str:
    """End the process, but for the second time."""
    if Path(marker).exists():
        return "alive"
    Path(marker).touch()
    os._exit(1)


@server.tool()
def refuse(why: str) -> str:
    """Say no."""
    raise ToolError(why)


@server.tool()
def sleep(seconds: float, marker: str = "") -> str:
    """Take a while; `marker` is a file that tells that it has begun."""
    if marker:
        Path(marker).touch()
    time.sleep(seconds)
    return "slept"


if os.environ.get("MCP_SCHEMA") == "other":

    @server.tool()
    def scored(account: int, region: str) -> int:
        """Score an account of a region."""
        return account + len(region)

else:

    @server.tool()
    def scored(account: int) -> int:
        """Score an account."""
        return account


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
