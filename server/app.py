"""The application: the one place where settings, engine, prompts, tools and database meet."""

import hashlib
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, cast

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from falsework import __version__
from falsework.server.api import IdempotencyKeys, Services, ServicesDep, console_page, console_state
from falsework.server.api.chat import routes as chat_routes
from falsework.server.api.messages import routes as message_routes
from falsework.server.api.responses import ResponseService
from falsework.server.api.responses import routes as response_routes
from falsework.server.api.responses import websocket as response_socket
from falsework.server.engines import Engine, EngineDeadError
from falsework.server.errors import (
    APIError,
    NotFoundError,
    ShuttingDown,
    ToolsUnavailable,
    error_response,
)
from falsework.server.generation import AdmissionController, TurnBuilder, TurnRunner
from falsework.server.http import (
    REQUEST_ID_HEADER,
    WARNING_HEADER,
    APIKeyAuth,
    BrowserChecks,
    RequestContextMiddleware,
    path_hint,
)
from falsework.server.models import cache_dir
from falsework.server.observability import RecentTraces, configure_tracing
from falsework.server.settings import Settings
from falsework.server.storage import Store
from falsework.server.tools import ToolRegistry, open_registry
from falsework.server.types import Json

READY_SECONDS = 5

Tools = AbstractAsyncContextManager[ToolRegistry]


def create_app(
    settings: Settings, engine: Engine, builder: TurnBuilder, tools: Tools | None = None
) -> FastAPI:
    """Return the server's application; `app.state.admission` is where it can be closed.

    `tools` are open as long as the application lives.
    """
    admission = AdmissionController(settings.max_concurrent_requests)
    runner = TurnRunner(engine, builder, admission)
    fingerprint = _fingerprint(settings, builder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[Json]:
        store = await Store.connect(database_url(settings), instance_id(settings))
        try:
            async with (
                tools or open_registry() as registry,
                _beside(store.heartbeat_loop),
                anyio.create_task_group() as background,
            ):
                keys = IdempotencyKeys(store)
                services = Services(
                    settings,
                    runner,
                    registry,
                    store,
                    keys,
                    admission,
                    background,
                    settings.model_id,
                    fingerprint,
                )
                responses = ResponseService(runner, settings, registry, store)
                yield {"services": services, "responses": responses}
                left = admission.start_drain(settings.drain_seconds)
                background.cancel_scope.deadline = anyio.current_time() + left
        finally:
            await store.close()

    app = FastAPI(title="Falsework", version=__version__, openapi_url=None, lifespan=lifespan)
    app.state.admission = admission
    app.add_middleware(
        BrowserChecks,
        open_to_all=not settings.api_key,
        hosts=settings.allowed_hosts,
        origins=settings.allowed_origins,
    )
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[REQUEST_ID_HEADER, WARNING_HEADER],
        )
    app.add_middleware(RequestContextMiddleware)
    app.add_exception_handler(APIError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    _add_routes(app, settings, [Depends(APIKeyAuth(settings.api_key))])
    return app


def _add_routes(app: FastAPI, settings: Settings, keys: list[Any]) -> None:
    created = int(time.time())

    async def list_models(services: ServicesDep) -> Json:
        model = _model(services, created)
        ends = {"first_id": model["id"], "last_id": model["id"], "has_more": False}
        return {"object": "list", "data": [model], **ends}

    async def retrieve_model(services: ServicesDep, name: str) -> Json:
        services.check_model(name)
        return _model(services, created)

    app.include_router(chat_routes.router, dependencies=keys)
    app.include_router(message_routes.router, dependencies=keys)
    app.include_router(response_routes.router, dependencies=keys)
    app.include_router(response_socket.router)
    app.get("/v1/models", dependencies=keys)(list_models)
    app.get("/v1/models/{name:path}", dependencies=keys)(retrieve_model)
    app.get("/metrics", dependencies=keys)(metrics)
    app.get("/health")(health)
    app.get("/ready")(ready)
    app.get("/version")(version)
    traces = configure_tracing(keep=settings.console)
    if traces:
        app.get("/console")(console_page)
        app.get("/console/state", dependencies=keys)(_console_state(traces))


def _model(services: Services, created: int) -> Json:
    """Return the model as OpenAI's and Anthropic's clients, and user interfaces, read it."""
    context = services.runner.builder.max_model_len
    return {
        "id": services.model_id,
        "object": "model",
        "type": "model",
        "created": created,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat(),
        "owned_by": "falsework",
        "display_name": services.model_id,
        "name": services.model_id,
        "max_model_len": context,
        "context_length": context,
        "context_window": context,
        "max_input_tokens": context,
        "max_tokens": context,
    }


def _console_state(traces: RecentTraces) -> Callable[..., Coroutine[Any, Any, Json]]:
    async def state(services: ServicesDep) -> Json:
        return console_state(services.registry, traces)

    return state


async def ready(services: ServicesDep) -> Json:
    """Return when the engine answers and tools can be run; raise APIError otherwise."""
    if services.admission.draining:
        raise ShuttingDown("This server is shutting down.")
    if not services.registry.healthy:
        raise ToolsUnavailable("This server can't run its tools any more.")
    await services.store.check()
    with anyio.move_on_after(READY_SECONDS):
        await services.runner.engine.check_health()
        return {"status": "ready"}
    raise EngineDeadError(f"The engine didn't answer within {READY_SECONDS} seconds.")


@asynccontextmanager
async def _beside(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[None]:
    """Run `work`, which never ends, beside what is done within."""
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


async def _api_error(request: Request, error: Exception) -> Response:
    return error_response(cast("APIError", error), request.url.path)


async def _http_error(request: Request, error: Exception) -> Response:
    error = cast("HTTPException", error)
    target = f"{request.method} {request.url.path}"
    hint = path_hint(request.url.path) if error.status_code == HTTPStatus.NOT_FOUND else ""
    not_found = NotFoundError(f"{error.detail}: {target}{hint}", code="unknown_url")
    not_found.status = error.status_code
    not_found.headers = dict(error.headers or {})
    return error_response(not_found, request.url.path)


def database_url(settings: Settings) -> str:
    """Return where responses are kept."""
    return settings.database or f"sqlite:///{cache_dir() / 'responses.db'}"


def instance_id(settings: Settings) -> str:
    """Return what tells this server's unfinished work from that of others."""
    return f"{socket.gethostname()}:{settings.port}"


def _fingerprint(settings: Settings, builder: TurnBuilder) -> str:
    parts = f"{__version__} {settings.model} {builder.dialect_name} {settings.device}"
    return "fp_" + hashlib.sha256(parts.encode()).hexdigest()[:10]
