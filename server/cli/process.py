"""The server process: port, engine, application, and a shutdown that drains requests."""

import asyncio
import logging
import os
import platform
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager, nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import ArgumentError
from sse_starlette.sse import AppStatus

from falsework.prompts import CallProfile, call_profile
from falsework.prompts.detection import detect_renderer
from falsework.prompts.renderer import PromptRenderer
from falsework.prompts.tokenizers import load_tokenizer
from falsework.server.app import create_app, database_url, instance_id
from falsework.server.cli.banner import startup_banner
from falsework.server.cli.engine_log import choose_engine_level
from falsework.server.cli.model_check import advice, check_limits
from falsework.server.engines import EngineSupervisor, emulates_bfloat16, intel_runtime
from falsework.server.generation import CheckPolicy, TurnBuilder
from falsework.server.http import MAX_HEAD_BYTES, LimitedProtocol
from falsework.server.models import ProgressCallback, read_config
from falsework.server.observability import configure_logging
from falsework.server.settings import ConfigError, Settings
from falsework.server.storage import Store
from falsework.server.tools import ToolRegistry, open_registry
from falsework.server.tools.config import load_tools_file

log = structlog.get_logger("falsework.server")

TRACKER_WARNINGS = "ignore::UserWarning:multiprocessing.resource_tracker"
"""What an engine leaves behind that was killed is cleaned up, with a warning that helps nobody."""

SHUTDOWN_GRACE_SECONDS = 5
"""Seconds that cancelled requests get to send their last events."""


class EngineLostError(RuntimeError):
    """The engine has died and may not be started again: the process has to end."""


class Server(uvicorn.Server):
    """uvicorn's server, which reports its port and drains requests after a signal."""

    def __init__(self, app: FastAPI, settings: Settings, ready: Callable[[int], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level=settings.log_level,
                server_header=False,
                http=LimitedProtocol,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_graceful_shutdown=int(settings.drain_seconds) + SHUTDOWN_GRACE_SECONDS,
            )
        )
        if settings.log_level != "debug":  # it tells each step of its own start
            logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
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
        log.info("shutting down", drain_seconds=self._drain_seconds)
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
def _without_group() -> Iterator[None]:
    """Raise an exception that task groups have wrapped as itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            (error,) = error.exceptions
        raise error from error.__cause__


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


async def start_model(
    settings: Settings, model: Path | str, announce: ProgressCallback = lambda _: None
) -> tuple[EngineSupervisor, TurnBuilder]:
    """Start the engine on a model, under supervision, and make the builder of its turns."""
    announce("Reading the tokenizer and the chat template")
    renderer = _load_renderer(settings, model)
    announce("Loading the engine's libraries")
    return await _start_engine(settings, model, renderer, announce)


async def _start_engine(
    settings: Settings, model: Path | str, renderer: PromptRenderer, announce: ProgressCallback
) -> tuple[EngineSupervisor, TurnBuilder]:
    from falsework.server.engines.vllm.engine import start_engine  # noqa: PLC0415 - takes seconds

    start = partial(start_engine, settings, model, renderer.tokenizer, renderer.dialect)
    began = time.monotonic()
    announce(f"Loading {settings.model} into the engine")
    engine, _ = await asyncio.gather(start(), asyncio.to_thread(renderer.prepare))
    builder = TurnBuilder(
        renderer,
        engine.vocabulary,
        engine.max_model_len,
        think_budget=settings.think_budget,
        checks=CheckPolicy(settings.unenforceable, settings.check_attempts),
        max_call_tokens=settings.max_call_tokens,
        tell_schema=settings.tell_schema,
        profile=profile_of(settings, renderer.dialect.name),
    )
    await builder.warm_up()
    supervisor = EngineSupervisor(
        engine,
        start,
        max_restarts=settings.engine_restarts,
        start_seconds=time.monotonic() - began,
    )
    return supervisor, builder


def profile_of(settings: Settings, dialect: str) -> CallProfile:
    """Return the biases of calls: the settings, otherwise what was measured of the family."""
    given = {
        name: getattr(settings, name)
        for name in (field.name for field in fields(CallProfile))
        if getattr(settings, name) is not None
    }
    return replace(call_profile(dialect, settings.model), **given)


def _load_renderer(settings: Settings, model: Path | str) -> PromptRenderer:
    """Load tokenizer and chat template, and choose the dialect; raise UnusableModel."""
    return detect_renderer(load_tokenizer(str(model), settings.chat_template), settings.dialect)


async def check_start(settings: Settings, model: Path | str, instance: str) -> None:
    """Find what is wrong with database and limits before the engine starts; raise ConfigError."""
    await _check_database(settings, instance)
    check_limits(read_config(model), settings)
    choose_engine_level(settings.log_level)
    os.environ.setdefault("PYTHONWARNINGS", TRACKER_WARNINGS)


def open_tools(settings: Settings) -> AbstractAsyncContextManager[ToolRegistry]:
    """Read the tools file, if there is one; raise ToolsFileError."""
    if not settings.tools:
        return open_registry()
    path = Path(settings.tools)
    return open_registry(load_tools_file(path), path.parent)


async def _check_database(settings: Settings, instance: str) -> None:
    try:
        store = await Store.connect(database_url(settings), instance)
    except (ArgumentError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            "database: this is no URL; give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    await store.close()


async def run_server(
    settings: Settings, model_path: Path | str, announce: ProgressCallback
) -> None:
    """Run a server until a signal ends it; raise EngineLostError when its engine can't go on.

    Whatever can be wrong with the settings is found before the engine starts, which takes long.
    """
    tools = open_tools(settings)
    configure_logging(settings.log_level)
    with closing(bind(settings)) as port:
        await check_start(settings, model_path, instance_id(settings))
        machine = platform.machine(), intel_runtime()
        for sentence in advice(settings, *machine, emulates=emulates_bfloat16()):
            announce(sentence)
        with _without_group():
            await _run(settings, model_path, port, announce, tools)


async def _run(
    settings: Settings,
    model_path: Path | str,
    port: socket.socket,
    announce: ProgressCallback,
    tools: AbstractAsyncContextManager[ToolRegistry],
) -> None:
    async with tools as registry:
        with _interruptible():
            began = time.monotonic()
            engine, turn_builder = await start_model(settings, model_path, announce)
        try:
            app = create_app(settings, engine, turn_builder, nullcontext(registry))

            def ready(number: int) -> None:
                announce(f"Ready after {time.monotonic() - began:.0f} s")
                announce(startup_banner(settings, turn_builder.dialect_name, number))

            await _serve(Server(app, settings, ready), port, engine)
        finally:
            await engine.close()


async def _serve(server: Server, port: socket.socket, engine: EngineSupervisor) -> None:
    """Serve until a signal, or until the engine isn't restarted any more."""
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve([port]))
        supervising = tasks.create_task(engine.supervise())
        await asyncio.wait({serving, supervising}, return_when=asyncio.FIRST_COMPLETED)
        lost = supervising.done()
        server.should_exit = True
        supervising.cancel()
    if lost:
        raise EngineLostError("The engine has died, and isn't started again (engine_restarts).")
