"""Behaviours of an upstream that speaks MCP over HTTP, well or not."""

import asyncio
import json
from typing import Any

from support.misbehaving_mcp_server import TOOL
from support.upstream import Behaviour, Json, Seen, says

HTTP = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "rough", "version": "1"},
    },
    "tools_list": {"tools": [TOOL]},
    "tools_call": {"content": [{"type": "text", "text": "done"}]},
}


def replied(seen: Seen, method: str, result: Json | None = None) -> Json:
    """Return the JSON-RPC response with the usual result of a method, or another one."""
    return {"jsonrpc": "2.0", "id": json.loads(seen.body)["id"], "result": result or HTTP[method]}


def speaks(**said: Any) -> Behaviour:
    """Speak MCP over HTTP: what is said by method is a result, or behaves itself."""

    async def behave(seen: Seen, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(seen.body or b"{}")
        method = asked.get("method", "").replace("/", "_")
        answer = said.get(method, HTTP.get(method))
        if callable(answer):
            await answer(seen, writer)
        elif answer is None:
            await says({}, 202 if "id" not in asked else 400)(seen, writer)
        else:
            await says({"jsonrpc": "2.0", "id": asked["id"], "result": answer})(seen, writer)

    return behave
