"""An MCP server over stdio that starts at once, since it needs no library.

`mcp_server.py` is a real one, with the same tools `add`, `refuse` and `scored`; this one is for
tests of what is done with the tools of an MCP server.
"""

import json
import sys
from typing import Any

INTEGER, TEXT = {"type": "integer"}, {"type": "string"}


def tool(name: str, result: Any, **properties: Any) -> Any:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    returned = {"type": "object", "properties": {"result": result}, "required": ["result"]}
    return {"name": name, "inputSchema": parameters, "outputSchema": returned}


TOOLS = [
    tool("add", INTEGER, a=INTEGER, b=INTEGER),
    tool("refuse", TEXT, why=TEXT),
    tool("scored", INTEGER, account=INTEGER),
]


def initialized(_: Any) -> Any:
    return {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "light", "version": "1"},
    }


def listed(_: Any) -> Any:
    return {"tools": TOOLS}


def called(params: Any) -> Any:
    if params["name"] == "refuse":
        return {"content": text_of(params["arguments"]["why"]), "isError": True}
    total = sum(params["arguments"].values())
    return {"content": text_of(str(total)), "structuredContent": {"result": total}}


def text_of(text: str) -> Any:
    return [{"type": "text", "text": text}]


METHODS = {"initialize": initialized, "tools/list": listed, "tools/call": called}
UNKNOWN = {"error": {"code": -32601, "message": "Method not found"}}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue
        method = METHODS.get(asked["method"])
        body = {"result": method(asked.get("params"))} if method else UNKNOWN
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **body}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
