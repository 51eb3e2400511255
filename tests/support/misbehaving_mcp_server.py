"""An MCP server over stdio that does as its one argument says, well-formed or not.

The argument is JSON, by method: what is answered as result, {"error": …}, or one of the WORDS.
"""

import json
import os
import sys
import time
from typing import Any

TOOL = {"name": "t", "inputSchema": {"type": "object"}}
USUAL = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "rough", "version": "1"},
    },
    "tools/list": {"tools": [TOOL]},
    "tools/call": {"content": [{"type": "text", "text": "done"}]},
}
NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}


def flood(piece: str) -> None:
    while True:
        sys.stdout.write(piece)


def complain() -> None:
    for number in range(2000):
        sys.stderr.write(f"error number {number} " + "x" * 80 + "\n")


WORDS = {
    "hang": lambda: time.sleep(60),
    "die": lambda: os._exit(1),
    "flood: one line": lambda: flood("x" * 2**16),
    "flood: lines": lambda: flood("noise\n" * 1000),
    "flood: messages": lambda: flood((json.dumps(NOTE) + "\n") * 1000),
    "flood: bytes": lambda: flood("\0" * 2**16 + "\n"),
    "errors: 2000": complain,
}
"""What is done instead of an answer, or before the usual one."""


def answer(said: Any, asked: Any) -> str:
    if isinstance(said, str) and said in WORDS:
        WORDS[said]()
        said = USUAL[asked["method"]]
    if isinstance(said, str):
        return said.replace("ID", json.dumps(asked["id"]))
    body = said if "error" in said else {"result": said}
    return json.dumps({"jsonrpc": "2.0", "id": asked["id"], **body})


def main(script: dict[str, Any]) -> None:
    unknown = {"error": {"code": -32601, "message": "no such method"}}
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue
        method = asked["method"]
        sys.stdout.write(answer(script.get(method, USUAL.get(method, unknown)), asked) + "\n")
        sys.stdout.flush()
        if script.get("after") == method:
            os._exit(1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
