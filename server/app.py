"""The routes, and the one place where settings, engine, scaffold, tools and database meet."""

from falsework.server.types import Json
import hashlib
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import Any, cast

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.exceptions import HTTPException

from falsework import __version__

from falsework.server.api.console import console_page, console_state
from falsework.server.api.routes import Routes
from falsework.server.engines.base import Engine, EngineDeadError
from falsework.server.errors import APIError, NotFoundError, ShuttingDown, ToolsUnavailable
from falsework.server.generation.admission import AdmissionController
from falsework.server.generation.turn import TurnBuilder
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.http.middleware import APIKeyAuth, RequestContextMiddleware, error_response
from falsework.server.models import cache_dir
from falsework.server.observability.tracing import configure_tracing
from falsework.server.settings import Settings
from falsework.server.storage.store import Store
from falsework.server.tools.registry import ToolRegistry, open_registry

READY_SECONDS = 5


class AppState:
    """What the routes share."""

    routes: Routes
    toolbox: ToolRegistry
    """Both are there as long as the application lives."""

    def __init__(self, settings: Settings, engine: Engine, scaffold: TurnBuilder) -> None:
        self.settings = settings
        self.engine = engine
        self.max_model_len = scaffold.max_model_len
        self.admission = AdmissionController(settings.max_concurrent_requests)
        self.created = int(time.time())
        self.fingerprint = _fingerprint(settings, scaffold)
        self.chat = TurnRunner(engine, scaffold, self.admission)
        self.traces = configure_tracing(keep=settings.console)

    @asynccontextmanager
    async def lifespan(
        self, tools: AbstractAsyncContextManager[ToolRegistry]
    ) -> AsyncGenerator[None]:
        """Open tools and database for the time of the application's life."""
        records = await Store.connect(database_url(self.settings), instance_id(self.settings))
        try:
            async with (
                tools as toolbox,
                _beside(records.heartbeat_loop),
                anyio.create_task_group() as tasks,
            ):
                self.toolbox = toolbox
                self.routes = Routes(
                    self.settings, self.chat, toolbox, records, tasks, self.fingerprint
                )
                yield
                left = self.admission.start_drain(self.settings.drain_seconds)
                tasks.cancel_scope.deadline = anyio.current_time() + left
        finally:
            await records.close()

    async def limit_concurrency(self, request: Request) -> AsyncGenerator[None]:
        """Hold a seat until the whole reply is sent, or by whoever takes it over."""
        with ExitStack() as seat:
            seat.enter_context(self.admission.acquire())
            request.state.seat = seat
            yield

    async def complete(self, request: Request) -> Response:
        """Answer a chat request."""
        return await self.routes.create_chat_completion(request)

    async def respond(self, request: Request) -> Response:
        """Answer a request for a response."""
        return await self.routes.create_response(request)

    async def retrieve(self, request: Request, response_id: str) -> Response:
        """Return a response, or its events again."""
        return await self.routes.retrieve(request, response_id)

    async def delete(self, request: Request, response_id: str) -> Json:
        """Delete a response."""
        return await self.routes.delete(request, response_id)

    async def cancel(self, request: Request, response_id: str) -> Json:
        """Stop a response that is made in the background."""
        return await self.routes.cancel(request, response_id)

    async def input_items(self, request: Request, response_id: str) -> Json:
        """Return the items that a response was asked with."""
        return await self.routes.input_items(request, response_id)

    async def list_models(self) -> Json:
        """List the one model."""
        return {"object": "list", "data": [self._model()]}

    async def retrieve_model(self, name: str) -> Json:
        """Describe the one model."""
        self.routes.check_model(name)
        return self._model()

    def _model(self) -> Json:
        return {
            "id": self.settings.model_id,
            "object": "model",
            "created": self.created,
            "owned_by": "falsework",
            "max_model_len": self.max_model_len,
        }

    async def ready(self) -> Json:
        """Say whether the engine answers, and whether tools can be run."""
        if self.admission.draining:
            raise ShuttingDown("This server is shutting down.")
        if not self.toolbox.healthy:
            raise ToolsUnavailable("This server can't run its tools any more.")
        with anyio.move_on_after(READY_SECONDS):
            await self.engine.check_health()
            return {"status": "ready"}
        raise EngineDeadError(f"The engine didn't answer within {READY_SECONDS} seconds.")

    async def console_state(self) -> Json:
        """Return what the console shows."""
        assert self.traces is not None, "there is a console"
        return console_state(self.toolbox, self.traces)


@asynccontextmanager
async def _beside(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[None]:
    """Do something for ever beside what is done within."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        yield
        tasks.cancel_scope.cancel()


async def metrics() -> Response:
    """Return every metric, the engine's among them, as Prometheus reads them."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


async def health() -> Json:
    """Say that the process lives."""
    return {"status": "alive"}


async def version() -> Json:
    """Say which version runs."""
    return {"version": __version__}


async def _refuse(_: Request, refusal: Exception) -> Response:
    return error_response(cast("APIError", refusal))


async def _refuse_route(request: Request, fault: Exception) -> Response:
    fault = cast("HTTPException", fault)
    where = f"{request.method} {request.url.path}"
    refusal = NotFoundError(f"{fault.detail}: {where}", code="unknown_url")
    refusal.status = fault.status_code
    refusal.headers = dict(fault.headers or {})
    return error_response(refusal)


def create_app(
    settings: Settings,
    engine: Engine,
    scaffold: TurnBuilder,
    tools: AbstractAsyncContextManager[ToolRegistry] | None = None,
) -> FastAPI:
    """Return the server's application; `app.state.admission` is where it can be closed.

    `tools` are open as long as the application lives.
    """
    house = AppState(settings, engine, scaffold)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with house.lifespan(tools or open_registry()):
            yield

    app = FastAPI(title="Falsework", version=__version__, openapi_url=None, lifespan=lifespan)
    app.state.admission = house.admission
    app.add_middleware(RequestContextMiddleware)
    app.add_exception_handler(APIError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    _add_routes(app, house, Depends(APIKeyAuth(settings.api_key)))
    return app


def _add_routes(app: FastAPI, house: AppState, keys: Any) -> None:
    seated = [keys, Depends(house.limit_concurrency)]
    app.post("/v1/chat/completions", dependencies=seated)(house.complete)
    app.post("/v1/responses", dependencies=seated)(house.respond)
    app.get("/v1/responses/{response_id}", dependencies=[keys])(house.retrieve)
    app.delete("/v1/responses/{response_id}", dependencies=[keys])(house.delete)
    app.post("/v1/responses/{response_id}/cancel", dependencies=[keys])(house.cancel)
    app.get("/v1/responses/{response_id}/input_items", dependencies=[keys])(house.input_items)
    app.get("/v1/models", dependencies=[keys])(house.list_models)
    app.get("/v1/models/{name:path}", dependencies=[keys])(house.retrieve_model)
    app.get("/metrics", dependencies=[keys])(metrics)
    if house.settings.console:
        app.get("/console")(console_page)
        app.get("/console/state", dependencies=[keys])(house.console_state)
    app.get("/health")(health)
    app.get("/ready")(house.ready)
    app.get("/version")(version)


def database_url(settings: Settings) -> str:
    """Return where responses are kept."""
    return settings.database or f"sqlite:///{cache_dir() / 'responses.db'}"


def instance_id(settings: Settings) -> str:
    """Return what tells this server's unfinished work from that of others."""
    return f"{socket.gethostname()}:{settings.port}"


def _fingerprint(settings: Settings, scaffold: TurnBuilder) -> str:
    made_of = f"{__version__} {settings.model} {scaffold.dialect_name} {settings.device}"
    return "fp_" + hashlib.sha256(made_of.encode()).hexdigest()[:10]
