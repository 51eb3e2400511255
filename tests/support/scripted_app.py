"""A whole server around a scripted engine: everything is real but the words of the model."""

import asyncio
import functools
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from falsework.grammars.events import Call
from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.dialects import DIALECTS, Dialect, with_reasoning
from falsework.prompts.renderer import PromptRenderer
from falsework.prompts.tokenizers import build_vocabulary
from falsework.server.api.chat.objects import ReplyHeader, collect_completion, stream_chunks
from falsework.server.app import create_app
from falsework.server.cli.process import Server, bind
from falsework.server.engines.scripted import ScriptedEngine
from falsework.server.generation.admission import AdmissionController
from falsework.server.generation.check_policy import CheckPolicy
from falsework.server.generation.turn import TurnBuilder
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.observability.request_metrics import RequestMetrics
from falsework.server.settings import Settings
from falsework.server.tools.registry import ToolRegistry
from support.chat_bodies import asked
from support.real_tokenizers import hugging_face
from support.server_process import eventually  # noqa: F401 - many tests find it here

Json = dict[str, Any]

DIALECT = DIALECTS["scaffold"]
SETTINGS = Settings(port=0, log_level="error", drain_seconds=1, database="sqlite://")


def calls(*said: tuple[str, str]) -> str:
    """Return calls as the model spells them."""
    return DIALECT.markup.render([Call(name, arguments) for name, arguments in said])


def scaffold_of(
    folder: Path,
    *,
    thinks: bool = False,
    checks: CheckPolicy | None = None,
    max_call_tokens: int = 0,
) -> TurnBuilder:
    """Return the scaffold of a model, with a think block or without."""
    dialect = with_reasoning(DIALECT) if thinks else DIALECT
    renderer = PromptRenderer(hugging_face(folder), dialect, knows_tools=False)
    return TurnBuilder(
        renderer,
        vocabulary_of(folder, dialect),
        4096,
        think_budget=64,
        checks=checks or CheckPolicy(),
        max_call_tokens=max_call_tokens,
    )


@functools.cache
def vocabulary_of(folder: Path, dialect: Dialect) -> Vocabulary:
    return build_vocabulary(hugging_face(folder), dialect.markers)


def whole(engine: ScriptedEngine, scaffold: TurnBuilder, **fields: Any) -> Json:
    """Return the reply to a request as one object."""
    question = asked(**fields)
    told = TurnRunner(engine, scaffold, AdmissionController(1)).stream(
        question, RequestMetrics("m", "chat", stream=False)
    )
    return asyncio.run(collect_completion(told, ReplyHeader(question, "fp")))


def chunks(
    engine: ScriptedEngine, scaffold: TurnBuilder, *, half_calls: bool = False, **fields: Any
) -> list[Json]:
    """Return the reply to a request chunk by chunk."""
    question = asked(stream=True, **fields)
    steps = TurnRunner(engine, scaffold, AdmissionController(1)).stream(
        question, RequestMetrics("m", "chat", stream=True), half_calls=half_calls
    )

    async def told() -> list[Json]:
        stream = stream_chunks(steps, ReplyHeader(question, "fp"))
        return [chunk async for chunk in stream]

    return asyncio.run(told())


class Running:
    """A server that runs in a thread of its own."""

    def __init__(
        self,
        engine: ScriptedEngine,
        scaffold: TurnBuilder,
        settings: Settings,
        tools: AbstractAsyncContextManager[ToolRegistry] | None = None,
    ) -> None:
        self.engine = engine
        self.app = create_app(settings, engine, scaffold, tools)
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
    scaffold: TurnBuilder,
    settings: Settings = SETTINGS,
    tools: AbstractAsyncContextManager[ToolRegistry] | None = None,
) -> Iterator[Running]:
    """Run a server on the loopback."""
    house = Running(engine, scaffold, settings, tools)
    house.start()
    try:
        yield house
    finally:
        house.stop()
        house.wait()
