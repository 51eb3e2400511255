"""A scripted model in a real server with real tools, and upstreams beside it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder
from falsework.server.settings import Settings
from falsework.server.tools.config.loader import parse_tools_file
from falsework.server.tools.registry import ToolRegistry, open_registry
from support.chat_bodies import Json
from support.clients import sent
from support.scripted_app import SETTINGS, Running, running
from support.upstream import Behaviour, Upstream, upstream


@contextmanager
def an_upstream(*script: Behaviour, always: Behaviour | None = None) -> Iterator[Upstream]:
    """Run an upstream in a thread of its own, beside the server's."""
    ready, over = threading.Event(), threading.Event()
    made: list[Upstream] = []

    async def serve() -> None:
        async with upstream(*script, always=always) as up:
            made.append(up)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield made[0]
    finally:
        over.set()
        thread.join()


@contextmanager
def house_of(
    scaffold: TurnBuilder,
    *turns: str | ScriptedReply,
    file: Json,
    settings: Settings = SETTINGS,
    folder: Path = Path(),
) -> Iterator[Running]:
    """Run a server whose model says one turn after the other, and whose tools are the file's."""
    lines = [ScriptedReply([turn]) if isinstance(turn, str) else turn for turn in turns]
    engine = ScriptedEngine(turns=lines)

    @asynccontextmanager
    async def tools() -> AsyncIterator[ToolRegistry]:
        async with open_registry(parse_tools_file(file), folder) as box:
            yield box

    with running(engine, scaffold, settings, tools()) as house:
        yield house


def metrics_of(house: Running) -> dict[str, float]:
    """Return the samples by name and labels."""
    text = sent(house, "GET", "/metrics").text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
