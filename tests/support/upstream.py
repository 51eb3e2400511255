"""An upstream on the loopback that misbehaves as it is told, one behaviour a request."""

import asyncio
import contextlib
import gzip
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from falsework.server.tools.config.loader import parse_tools_file
from falsework.server.tools.registry import ToolRegistry, open_registry
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import ToolCall
from falsework.server.tools.tool_run import ToolRun

Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A request as the upstream read it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upstream:
    """Behaves as `script` says, then as `always` says; resets its first `deaf` connections unread.

    `open` counts the connections that it has, `accepted` all that it ever had.
    """

    script: list[Behaviour] = field(default_factory=list)
    always: Behaviour | None = None
    seen: list[Seen] = field(default_factory=list)
    deaf: int = 0
    accepted: int = 0
    open: int = 0
    port: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            if self.accepted <= self.deaf:
                await resets(None, writer)
            while request := await _read(reader):
                self.seen.append(request)
                behave = self.script.pop(0) if self.script else self.always or says({"ok": 1})
                await behave(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # cancelled where the upstream ends: asyncio's own streams would complain of it
        finally:
            self.serving.discard(task)
            self.open -= 1
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    head = b""
    with contextlib.suppress(asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head:
        return None
    first, *lines = head.decode().strip().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split(" ")
    return Seen(method, path, headers, body)


def _response(status: int, body: bytes, headers: Json) -> bytes:
    told = {"content-type": "application/json", "content-length": len(body), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


def says(value: Any, status: int = 200, after: float = 0, **headers: str) -> Behaviour:
    async def behave(_: Seen, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(after)
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        writer.write(_response(status, json.dumps(value).encode(), named))

    return behave


def says_bytes(body: bytes, **headers: str) -> Behaviour:
    async def behave(_: Seen, writer: asyncio.StreamWriter) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        writer.write(_response(200, body, named))

    return behave


async def hangs(_: Seen, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def resets(_: Seen | None, writer: asyncio.StreamWriter) -> None:
    """Reset the connection after the request was read."""
    linger = struct.pack("ii", 1, 0)
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    raise ConnectionError


async def drips(_: Seen, writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then, for ever."""
    writer.write(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n"
                 b"content-length: 100000\r\n\r\n")  # fmt: skip
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def breaks_off(_: Seen, writer: asyncio.StreamWriter) -> None:
    """Close in the middle of the body."""
    writer.write(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n"
                 b'content-length: 100\r\n\r\n{"half":')  # fmt: skip
    await writer.drain()
    raise ConnectionError


def bomb(size: int) -> Behaviour:
    return says_bytes(gzip.compress(b" " * size), content_encoding="gzip")


@asynccontextmanager
async def upstream(*script: Behaviour, always: Behaviour | None = None) -> AsyncIterator[Upstream]:
    made = Upstream(list(script), always)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tuple(made.serving):
            task.cancel()
        await asyncio.sleep(0)


def http_tool(up: Upstream, name: str = "look", path: str = "/look", **fields: Any) -> Json:
    """Return a read of the upstream; `method` makes it another."""
    method = fields.pop("method", "GET")
    return {
        "name": name,
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}},
        "http": {"url": up.url + path, "method": method},
        **fields,
    }


QUICK = {"attempt_timeout": "250ms", "deadline": "2s", "retry": {"base": "1ms"}}
PATIENT = {"breaker": {"enabled": False}, "retry": {"base": "0ms"}}


def write(up: Upstream, **fields: Any) -> Json:
    """Return a write of the upstream."""
    return http_tool(up, "change", "/change", method="POST", **fields)


@dataclass
class Clock:
    """A monotonic clock that runs, and can be moved on."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@asynccontextmanager
async def toolbox(
    *tools: Json, clock: Callable[[], float] = time.monotonic, **file: Any
) -> AsyncIterator[ToolRegistry]:
    parsed = parse_tools_file({"tools": list(tools), **file})
    async with open_registry(parsed, clock=clock) as box:
        yield box


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until something comes true; fail where it doesn't."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await anyio.sleep(0.005)


def run(box: ToolRegistry, seconds: float = 20, **more: Any) -> ToolRun:
    return box.new_run("run_of_tests", seconds, **more)


async def call(
    box: ToolRegistry, arguments: str = "{}", name: str = "look", seconds: float = 20
) -> ToolResult:
    """Call one tool in a run of its own."""
    (outcome,) = await run(box, seconds).execute([ToolCall("call_1", name, arguments)])
    return outcome


async def calls(
    box: ToolRegistry, asked: Sequence[tuple[str, str]], seconds: float = 20
) -> list[ToolResult]:
    """Call several tools in one turn."""
    numbered = [ToolCall(f"call_{i}", name, text) for i, (name, text) in enumerate(asked)]
    return await run(box, seconds).execute(numbered)


def kind(outcome: ToolResult) -> str:
    return outcome.error.kind if outcome.error else "ok"


def connections(box: ToolRegistry, name: str = "look") -> int:
    """Return how many connections the client of a tool holds."""
    executor: Any = box.tools[name].executor
    transport = executor._client._transport
    while not hasattr(transport, "_pool"):
        transport = transport._inner
    return len(transport._pool.connections)
