"""What the routes share: made when the application starts, found in each request's state."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

from anyio.abc import TaskGroup
from fastapi import Depends, Request

from falsework.server.api.idempotency import IdempotencyKeys
from falsework.server.errors import APIError, NotFoundError
from falsework.server.generation import AdmissionController, TurnRunner
from falsework.server.http import read_body
from falsework.server.settings import Settings
from falsework.server.storage import Store
from falsework.server.tools import ToolRegistry

MAX_QUOTED_NAME = 200


@dataclass(frozen=True)
class Services:
    """The parts that answer requests; `background` runs what no client waits for."""

    settings: Settings
    runner: TurnRunner
    registry: ToolRegistry
    store: Store
    keys: IdempotencyKeys
    admission: AdmissionController
    background: TaskGroup
    model_id: str
    fingerprint: str

    def check_model(self, name: str) -> None:
        """Raise NotFoundError for a model that isn't served."""
        if name != self.model_id:
            raise NotFoundError(
                f"The model '{name[:MAX_QUOTED_NAME]}' does not exist. This server has "
                f"'{self.model_id}'.",
                "model",
                "model_not_found",
            )


async def get_services(request: Request) -> Services:
    """Return the services of the application."""
    services: Services = request.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_body(request: Request, services: ServicesDep) -> bytes:
    """Return the body of a request."""
    return await read_body(request, services.settings.max_body_bytes)


BodyDep = Annotated[bytes, Depends(get_body)]


async def hold_seat(request: Request, services: ServicesDep, body: BodyDep) -> AsyncGenerator[None]:
    """Hold a seat until the reply is sent, or until whoever takes it over releases it.

    A request gets its seat once its body is there: one that never comes holds none.
    """
    with ExitStack() as seat:
        try:
            seat.enter_context(services.admission.acquire())
        except APIError:
            services.keys.note_refused(request, body)
            raise
        request.state.seat = seat
        yield
