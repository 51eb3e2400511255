"""A whole server around a scripted engine: everything is real but the words of the model."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from asking import asked
from transformers import AutoTokenizer

from falsework.grammars.calls import Call
from falsework.prompts.conversations import Prompter
from falsework.prompts.dialects import DIALECTS, thinking
from falsework.prompts.tokenizers import vocabulary_of
from falsework.runtime.toolbox import Toolbox
from falsework.server import completions
from falsework.server.app import make_app
from falsework.server.chat import Chat
from falsework.server.desk import Desk
from falsework.server.engines.scripted import ScriptedEngine
from falsework.server.replies import Envelope
from falsework.server.serving import Server, bind
from falsework.server.settings import Settings
from falsework.server.turns import Scaffold
from falsework.server.watching.watches import Watch

Json = dict[str, Any]

DIALECT = DIALECTS["scaffold"]
SETTINGS = Settings(port=0, log_level="error", drain_seconds=1, database="sqlite://")


def calls(*said: tuple[str, str]) -> str:
    """Return calls as the model spells them."""
    return DIALECT.markup.write([Call(name, arguments) for name, arguments in said])


def scaffold_of(folder: Path, *, thinks: bool = False) -> Scaffold:
    """Return the scaffold of a model, with a think block or without."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dialect = thinking(DIALECT) if thinks else DIALECT
    vocabulary = vocabulary_of(tokenizer, dialect.markers)
    return Scaffold(
        Prompter(tokenizer, dialect, knows_tools=False), vocabulary, 4096, think_budget=64
    )


def whole(engine: ScriptedEngine, scaffold: Scaffold, **fields: Any) -> Json:
    """Return the reply to a request as one object."""
    question = asked(**fields)
    told = Chat(engine, scaffold, Desk(1)).told(question, Watch("m", "chat", stream=False))
    return asyncio.run(completions.whole(told, Envelope(question, "fp")))


def chunks(
    engine: ScriptedEngine, scaffold: Scaffold, *, half_calls: bool = False, **fields: Any
) -> list[Json]:
    """Return the reply to a request chunk by chunk."""
    question = asked(stream=True, **fields)
    steps = Chat(engine, scaffold, Desk(1)).told(
        question, Watch("m", "chat", stream=True), half_calls=half_calls
    )

    async def told() -> list[Json]:
        stream = completions.streamed(steps, Envelope(question, "fp"))
        return [chunk async for chunk in stream]

    return asyncio.run(told())


class Running:
    """A server that runs in a thread of its own."""

    def __init__(
        self,
        engine: ScriptedEngine,
        scaffold: Scaffold,
        settings: Settings,
        tools: AbstractAsyncContextManager[Toolbox] | None = None,
    ) -> None:
        self.engine = engine
        self.app = make_app(settings, engine, scaffold, tools)
        self.port = 0
        self.web: uvicorn.Server = Server(self.app, settings, self._listens)
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self.web.run, args=([bind(settings)],))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(10)

    def stop(self) -> None:
        self.web.should_exit = True

    def wait(self) -> None:
        self._thread.join(15)
        assert not self._thread.is_alive()

    def _listens(self, port: int) -> None:
        self.port = port
        self._listening.set()


@contextmanager
def running(
    engine: ScriptedEngine,
    scaffold: Scaffold,
    settings: Settings = SETTINGS,
    tools: AbstractAsyncContextManager[Toolbox] | None = None,
) -> Iterator[Running]:
    """Run a server on the loopback."""
    house = Running(engine, scaffold, settings, tools)
    house.start()
    try:
        yield house
    finally:
        house.stop()
        house.wait()


def eventually(holds: Any, seconds: float = 5) -> bool:
    """Tell whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(holds())
