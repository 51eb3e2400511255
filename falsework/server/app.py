"""The routes, and the one place where settings, engine and scaffold meet."""

import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from falsework import __version__
from falsework.runtime.toolbox import Toolbox, opened
from falsework.server.chat import Chat
from falsework.server.completions import streamed, whole
from falsework.server.deadlines import seconds_of
from falsework.server.desk import Desk
from falsework.server.door import Door, Keys, read, rendered
from falsework.server.engines.base import Engine, EngineGone
from falsework.server.questions import ask
from falsework.server.refusals import NotFound, Refusal, ShuttingDown
from falsework.server.replies import Envelope, Json, new_id
from falsework.server.rounds import Rounds, Told
from falsework.server.served import served
from falsework.server.settings import Settings
from falsework.server.streams import open_stream, unless_gone
from falsework.server.turns import Scaffold
from falsework.server.wire import parse

READY_SECONDS = 5


class House:
    """What the routes share."""

    toolbox: Toolbox
    """The tools that this server runs; there as long as the application lives."""

    def __init__(self, settings: Settings, engine: Engine, scaffold: Scaffold) -> None:
        self.settings = settings
        self.engine = engine
        self.max_model_len = scaffold.max_model_len
        self.desk = Desk(settings.max_concurrent_requests)
        self.created = int(time.time())
        self.fingerprint = _fingerprint(settings, scaffold)
        self.chat = Chat(engine, scaffold, self.desk)

    async def seated(self) -> AsyncGenerator[None]:
        """Hold a seat until the whole reply is sent."""
        with self.desk.seat():
            yield

    async def complete(self, request: Request) -> Response:
        """Answer a chat request."""
        wire = parse(await read(request, self.settings.max_body_bytes))
        self.check_model(wire.model)
        ours = await served(wire.tools or [], self.toolbox)
        question = ask(wire, self.settings, ours)
        envelope = Envelope(question, self.fingerprint)
        half_calls = question.stream and self.settings.stream_calls == "as_decoded"
        told: AsyncGenerator[Told] = self.chat.told(question, half_calls=half_calls)
        if ours.by_position:
            run = self.toolbox.run(new_id("run_"), seconds_of(request.headers))
            envelope = replace(envelope, runtime=run.told)
            told = Rounds(self.chat, run, ours.names).told(question)
        if question.stream:
            return await open_stream(request, streamed(told, envelope))
        return JSONResponse(await unless_gone(request, whole(told, envelope)))

    def check_model(self, name: str) -> None:
        """Refuse a model that isn't served."""
        if name != self.settings.model_id:
            raise NotFound(
                f"The model '{name[:200]}' does not exist. This server has "
                f"'{self.settings.model_id}'.",
                "model",
                "model_not_found",
            )

    async def models(self) -> Json:
        """List the one model."""
        return {"object": "list", "data": [self._model()]}

    async def model(self, name: str) -> Json:
        """Describe the one model."""
        self.check_model(name)
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
        """Say whether the engine answers."""
        if self.desk.closed:
            raise ShuttingDown("This server is shutting down.")
        with anyio.move_on_after(READY_SECONDS):
            await self.engine.check()
            return {"status": "ready"}
        raise EngineGone(f"The engine didn't answer within {READY_SECONDS} seconds.")


async def health() -> Json:
    """Say that the process lives."""
    return {"status": "alive"}


async def version() -> Json:
    """Say which version runs."""
    return {"version": __version__}


async def _refuse(_: Request, refusal: Exception) -> Response:
    return rendered(cast("Refusal", refusal))


async def _refuse_route(request: Request, fault: Exception) -> Response:
    fault = cast("HTTPException", fault)
    where = f"{request.method} {request.url.path}"
    refusal = NotFound(f"{fault.detail}: {where}", code="unknown_url")
    refusal.status = fault.status_code
    refusal.headers = dict(fault.headers or {})
    return rendered(refusal)


def make_app(
    settings: Settings,
    engine: Engine,
    scaffold: Scaffold,
    tools: AbstractAsyncContextManager[Toolbox] | None = None,
) -> FastAPI:
    """Return the server's application; `app.state.desk` is where it can be closed.

    `tools` are open as long as the application lives.
    """
    house = House(settings, engine, scaffold)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with tools or opened() as house.toolbox:
            yield

    app = FastAPI(title="Falsework", version=__version__, openapi_url=None, lifespan=lifespan)
    app.state.desk = house.desk
    app.add_middleware(Door)
    app.add_exception_handler(Refusal, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    _add_routes(app, house, Depends(Keys(settings.api_key)))
    return app


def _add_routes(app: FastAPI, house: House, keys: Any) -> None:
    app.post("/v1/chat/completions", dependencies=[keys, Depends(house.seated)])(house.complete)
    app.get("/v1/models", dependencies=[keys])(house.models)
    app.get("/v1/models/{name:path}", dependencies=[keys])(house.model)
    app.get("/health")(health)
    app.get("/ready")(house.ready)
    app.get("/version")(version)


def _fingerprint(settings: Settings, scaffold: Scaffold) -> str:
    made_of = f"{__version__} {settings.model} {scaffold.dialect_name} {settings.device}"
    return "fp_" + hashlib.sha256(made_of.encode()).hexdigest()[:10]
