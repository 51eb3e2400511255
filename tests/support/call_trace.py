"""The way of one request: the files of the package whose functions run for it, in their order.

The engine is scripted and everything else is real. Only what a reader would follow counts: a
function that is called, but no generator that goes on after a `yield` or an `await`.
"""

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

from falsework.server.app import create_app
from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder
from falsework.server.tools.config.loader import parse_tools_file
from falsework.server.tools.registry import ToolRegistry, open_registry
from support.chat_bodies import Json, tool
from support.clients import CHAT, HELLO
from support.scripted_app import SETTINGS, calls

ROOT = Path(__file__).parents[2]
ROOMS = tuple(f"{ROOT / room}/" for room in ("server", "prompts", "grammars"))
LINKS = str(ROOT / "falsework") + "/"
NOT_FUNCTIONS = frozenset({"<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})
RESUMED = 3
"""Bits of the argument of the bytecode RESUME: none of them where a function begins."""

CHAT_TOOL = tool("f", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
DOUBLES = {
    "name": "double",
    "description": "Doubles a number.",
    "python": {"callable": "support.python_tools:double"},
    "effect": "pure",
}


def visited(files: Sequence[str]) -> list[str]:
    """Return the files in the order of their first visit."""
    return list(dict.fromkeys(files))


def moves(files: Sequence[str]) -> int:
    """Return how often the request moves from one file to another."""
    return len(files) - 1


def _begins(frame: FrameType) -> bool:
    """Tell whether a function begins: no generator goes on, and no comprehension of one begins."""
    resume = frame.f_code.co_code[frame.f_lasti + 1] if frame.f_lasti >= 0 else 0
    return not resume & RESUMED and frame.f_code.co_name not in NOT_FUNCTIONS


_of_the_request: ContextVar[bool] = ContextVar("_of_the_request", default=False)
"""Whether what runs is the request's: tasks and threads have it of those that begin them."""


@contextmanager
def _traced(files: list[str]) -> Iterator[None]:
    """Append the file of each call, in every task and thread that begins within, too.

    What the server does by itself, as heartbeats, is left out.
    """

    def notice(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not _of_the_request.get() or not _begins(frame):
            return
        path = frame.f_code.co_filename
        path = str(ROOT) + "/" + path.removeprefix(LINKS) if path.startswith(LINKS) else path
        if path.startswith(ROOMS):
            files.append(path.removeprefix(f"{ROOT}/"))

    ours = _of_the_request.set(True)
    threading.setprofile(notice)
    sys.setprofile(notice)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        _of_the_request.reset(ours)


async def _ask(app: Any, path: str, body: Json, state: Json) -> tuple[int, bytes]:
    """Send one request to an application and return its status and its reply's body."""
    sent: list[Any] = []
    messages: list[Json] = [
        {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": dict(state),
    }

    async def receive() -> Json:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError("nobody leaves")

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def trace(
    builder: TurnBuilder, path: str, body: Json, *turns: str, file: Json | None = None
) -> list[str]:
    """Return the files that a request goes through, each as often as the request comes to it."""

    @asynccontextmanager
    async def registry() -> AsyncIterator[ToolRegistry]:
        async with open_registry(parse_tools_file(file or {})) as opened:
            yield opened

    engine = ScriptedEngine(turns=[ScriptedReply([turn]) for turn in turns])
    app = create_app(SETTINGS, engine, builder, registry())
    files: list[str] = []

    async def run() -> None:
        lifespan: AbstractAsyncContextManager[Any] = app.router.lifespan_context(app)
        async with lifespan as state:
            await asyncio.sleep(0.05)  # what runs beside the requests begins
            with _traced(files):
                status, reply = await _ask(app, path, body, state)
            assert status == 200, reply

    asyncio.run(run())
    return [name for name, _ in itertools.groupby(files)]


def trace_chat(builder: TurnBuilder) -> list[str]:
    """Return the way of a chat request that has to call the client's one tool."""
    body = {**HELLO, "tools": [CHAT_TOOL], "tool_choice": "required"}
    return trace(builder, CHAT, body, calls(("f", '{"a": 1}')))


def trace_response(builder: TurnBuilder) -> list[str]:
    """Return the way of a response of two turns, between which the server runs a tool."""
    body = {
        "model": HELLO["model"],
        "input": "What is 2 times 2?",
        "tools": [{"type": "server_tool", "name": "double"}],
    }
    said = (calls(("double", '{"number": 2}')), "It is 4.")
    return trace(builder, "/v1/responses", body, *said, file={"tools": [DOUBLES]})
