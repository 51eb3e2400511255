"""Making a response: its events while it is made, each step stored before the next."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import structlog

from falsework.server.api.responses.approvals import call_digest
from falsework.server.api.responses.events import ResponseEventBuilder
from falsework.server.api.responses.runner import run_response
from falsework.server.api.responses.schema import CreateResponseRequest
from falsework.server.api.responses.state import InProgressResponse
from falsework.server.errors import APIError, InternalServerError
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.observability import telemetry
from falsework.server.observability.request_metrics import record_outcome
from falsework.server.storage.store import Store
from falsework.server.types import Json

FAILURE_MESSAGE = "The server failed while it made the response."

log = structlog.get_logger("falsework")


class ResponseMaker:
    """Makes responses and stores what becomes of them."""

    def __init__(self, runner: TurnRunner, store: Store) -> None:
        self._runner = runner
        self._store = store

    async def make(self, response: InProgressResponse) -> AsyncGenerator[Json]:
        """Yield the events of a response while it is made; it is stored before its end is sent.

        Raise APIError once it has failed.
        """
        builder, parts = response.builder, response.parts
        try:
            for event in builder.start():
                yield event
            with record_outcome(parts.metrics):
                async with aclosing(self._steps(response)) as steps:
                    async for events in steps:
                        response.notify()
                        for event in events:
                            yield event
            runtime = parts.run.summary() if parts.prepared.server_tools.names else None
            ending = builder.finish(runtime)
        except APIError as error:
            builder.fail(error)
            raise
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            response.cut_off()
            raise
        except Exception as error:
            # The outermost handler of a response: its events have to end, whoever reads them.
            log.exception(telemetry.UNMADE_LINE)
            failure = InternalServerError(FAILURE_MESSAGE)
            builder.fail(failure)
            raise failure from error
        finally:
            with anyio.CancelScope(shield=True):
                await self._end(response)
        for event in ending:
            yield event

    def _steps(self, response: InProgressResponse) -> AsyncGenerator[list[Json]]:
        parts, builder = response.parts, response.builder

        async def save() -> None:
            async with response.saving:
                await self.update(parts.owner, parts.request, builder, running=True)

        async def save_approval(item: Json) -> None:
            await self._store.approvals.create(parts.owner, item["id"], call_digest(item))

        return run_response(parts, builder, self._runner, save, save_approval)

    async def update(
        self,
        owner: str,
        request: CreateResponseRequest,
        builder: ResponseEventBuilder,
        *,
        running: bool,
    ) -> None:
        """Store what a response has become; its events once it has ended."""
        if request.store is not False:
            events = [] if running else builder.events
            await self._store.responses.update(owner, builder.body, events, running=running)

    async def _end(self, response: InProgressResponse) -> None:
        parts = response.parts
        try:
            async with response.saving:
                await self.update(parts.owner, parts.request, response.builder, running=False)
        finally:
            response.over = True
            response.notify()
