"""Making a response: its events while it is made, each step stored before the next."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, nullcontext

import anyio
import structlog

from falsework.server.api.responses.approvals import call_digest
from falsework.server.api.responses.runner import run_response
from falsework.server.api.responses.schema import CreateResponseRequest
from falsework.server.api.responses.state import InProgressResponse
from falsework.server.errors import APIError, InternalServerError
from falsework.server.generation import TurnRunner
from falsework.server.observability import record_outcome, telemetry
from falsework.server.storage import NOT_STORED, StorageUnavailable, Store
from falsework.server.types import Json

WRITTEN = frozenset({"applied", "unknown"})

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

    @contextmanager
    def _warning(self, response: InProgressResponse, body: Json | None = None) -> Iterator[None]:
        """Have a response go on that can't be stored: what it did stands, and it says so."""
        try:
            yield
        except StorageUnavailable as error:
            log.warning(telemetry.LOG_NOT_STORED, reason=error.message)
            warning = {"code": error.code, "message": NOT_STORED}
            response.builder.warn(warning)
            if body:
                body["warnings"] = [*body.get("warnings", ()), warning]

    def _steps(self, response: InProgressResponse) -> AsyncGenerator[list[Json]]:
        parts, builder = response.parts, response.builder

        async def save() -> None:
            with self._warning(response):
                if parts.request.store is False:
                    return
                async with response.saving:
                    await self._store.responses.update(parts.owner, builder.body, [], running=True)

        async def save_approval(item: Json) -> None:
            written = any(result.effect in WRITTEN for result in parts.run.executed)
            with self._warning(response) if written else nullcontext():
                await self._store.approvals.create(parts.owner, item["id"], call_digest(item))

        return run_response(parts, builder, self._runner, save, save_approval)

    async def store_end(
        self, owner: str, request: CreateResponseRequest, body: Json, events: list[Json]
    ) -> None:
        """Store what a response has become in the end."""
        if request.store is not False:
            await self._store.responses.update(owner, body, events, running=False)

    async def _end(self, response: InProgressResponse) -> None:
        parts = response.parts
        try:
            body = response.builder.body
            with self._warning(response, body):
                async with response.saving:
                    await self.store_end(parts.owner, parts.request, body, response.events)
        finally:
            response.over = True
            response.notify()
