"""The server process: port, engine, application, and a shutdown that drains requests."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from falsework.prompts.detection import detect_renderer
from falsework.server.app import create_app, database_url, instance_id
from falsework.server.cli.banner import startup_banner
from falsework.server.generation.turn import TurnBuilder
from falsework.server.models import ProgressCallback
from falsework.server.observability.logging import configure_logging
from falsework.server.settings import ConfigError, Settings
from falsework.server.storage.store import Store
from falsework.server.tools.config.loader import load_tools_file
from falsework.server.tools.registry import open_registry

if TYPE_CHECKING:
    from falsework.server.engines.vllm.engine import VllmEngine

VLLM_LEVELS = {"debug": "DEBUG", "info": "WARNING", "warning": "WARNING", "error": "ERROR"}
"""vLLM's log level for each of ours; its INFO would bury the startup banner."""

SHUTDOWN_GRACE_SECONDS = 5
"""Seconds that cancelled requests get to send their last events."""


class Server(uvicorn.Server):
    """uvicorn's server, which reports its port and drains requests after a signal."""

    def __init__(self, app: FastAPI, settings: Settings, ready: Callable[[int], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level=settings.log_level,
                server_header=False,
                timeout_graceful_shutdown=int(settings.drain_seconds) + SHUTDOWN_GRACE_SECONDS,
            )
        )
        self._admission = app.state.admission
        self._drain_seconds = settings.drain_seconds
        self._ready = ready
        # Otherwise every stream would be cut at the signal; the admission controller ends them.
        AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and report the port."""
        await super().startup(sockets)
        self._ready(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more requests, and cancel those that outlast the drain period."""
        self._admission.stop_accepting()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._drain_seconds, self._admission.cancel_all)
        await super().shutdown(sockets)
        timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown; a second interrupt skips the draining."""
        # uvicorn's own would raise the signal again after the shutdown: exit status 143, not 0.
        del frame
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def bind(settings: Settings) -> socket.socket:
    """Return a socket bound to the port, so that a taken port is known before a model loads."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"{settings.host}:{settings.port} can't be listened on: {error}"
        ) from error
    return bound


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM cancel this task, until the server handles the signal itself."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def start_model(settings: Settings, model: Path | str) -> "tuple[VllmEngine, TurnBuilder]":
    """Start the engine on a model, and make the builder of its turns."""
    # Both take seconds to import.
    from transformers import AutoTokenizer  # noqa: PLC0415

    from falsework.server.engines.vllm.engine import start_engine  # noqa: PLC0415

    renderer = detect_renderer(AutoTokenizer.from_pretrained(str(model)), settings.dialect)
    engine = await start_engine(settings, model, renderer.tokenizer, renderer.dialect)
    builder = TurnBuilder(
        renderer, engine.vocabulary, engine.max_model_len, think_budget=settings.think_budget
    )
    return engine, builder


async def run_server(
    settings: Settings, model_path: Path | str, announce: ProgressCallback
) -> None:
    """Run a server until a signal ends it."""
    tools = (
        (load_tools_file(Path(settings.tools)), Path(settings.tools).parent)
        if settings.tools
        else ()
    )
    configure_logging(settings.log_level)
    with closing(bind(settings)) as port:
        await (await Store.connect(database_url(settings), instance_id(settings))).close()
        # vLLM reads it when it is imported, and its processes inherit it.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", VLLM_LEVELS[settings.log_level])
        with _interruptible():
            engine, turn_builder = await start_model(settings, model_path)
        try:
            async with open_registry(*tools) as registry:
                app = create_app(settings, engine, turn_builder, nullcontext(registry))

                def ready(number: int) -> None:
                    announce(startup_banner(settings, turn_builder.dialect_name, number))

                await Server(app, settings, ready).serve([port])
        finally:
            await engine.close()
