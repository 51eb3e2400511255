"""The process: a port, an engine, the application, and an end that lets running requests finish."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from falsework.server.app import create_app, database_url, instance_id
from falsework.server.cli.banner import startup_banner
from falsework.server.observability.logging import configure_logging
from falsework.server.settings import ConfigError, Settings
from falsework.server.storage.store import Store
from falsework.server.tools.config.loader import load_tools_file
from falsework.server.tools.registry import open_registry

ProgressCallback = Callable[[str], None]

VLLM_LEVELS = {"debug": "DEBUG", "info": "WARNING", "warning": "WARNING", "error": "ERROR"}
"""What vLLM logs, by our own level: what it calls information would bury the greeting."""

SHUTDOWN_GRACE_SECONDS = 5
"""How long requests that were sent home may take to tell their clients."""


class Server(uvicorn.Server):
    """A web server that says when it listens, and that a signal ends in good order."""

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
        # Otherwise every stream would be cut at the signal; the desk ends them instead.
        AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._ready(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody new in, and send home who isn't done in time."""
        self._admission.stop_accepting()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._drain_seconds, self._admission.cancel_all)
        await super().shutdown(sockets)
        timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the server; a second interrupt doesn't wait."""
        # uvicorn's own would raise the signal again after the shutdown: exit status 143, not 0.
        del frame
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def bind(settings: Settings) -> socket.socket:
    """Return a socket that holds the port, so that a taken port is told before a model loads."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((settings.host, settings.port))
    except OSError as fault:
        held.close()
        raise ConfigError(
            f"{settings.host}:{settings.port} can't be listened on: {fault}"
        ) from fault
    return held


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM cancel what this task does; later the server listens to it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


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
        from falsework.server.engines.vllm.engine import start_engine  # noqa: PLC0415 - it takes seconds to import

        with _interruptible():
            engine, scaffold = await start_engine(settings, model_path)
        try:
            async with open_registry(*tools) as toolbox:
                app = create_app(settings, engine, scaffold, nullcontext(toolbox))

                def ready(number: int) -> None:
                    announce(startup_banner(settings, scaffold.dialect_name, number))

                await Server(app, settings, ready).serve([port])
        finally:
            await engine.close()
