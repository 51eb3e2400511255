"""Idempotency: a request that comes again is answered again, not done again.

A client says so with an Idempotency-Key. OpenAI's SDKs send none, but they count their own retries:
the first retry of a body is the request before it.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import anyio
import cachetools
import structlog
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from falsework.server.errors import BadRequestError, ConflictError, NotFoundError
from falsework.server.http import cancel_on_disconnect, open_stream, principal
from falsework.server.ids import new_id
from falsework.server.observability import telemetry
from falsework.server.storage import IDEMPOTENCY_TTL, StorageUnavailable, Store, StoredReply
from falsework.server.tools import ToolRun
from falsework.server.tools.results import ToolResult
from falsework.server.types import Json

IDEMPOTENCY_HEADER = "idempotency-key"
REPLAYED_HEADER = {"idempotent-replayed": "true"}
MAX_KEY_LENGTH = 255
SDK_RETRIES = "x-stainless-retry-count"
SDK_PREFIX = "sdk_"
SDK_SECONDS = 900.0
"""How long after a request its SDK may retry it."""

MAX_REFUSED = 10_000

MAX_WAIT_SECONDS = 600
POLL_SECONDS = 0.05
POLL_GROWTH = 1.5
LONGEST_POLL_SECONDS = 0.5

log = structlog.get_logger("falsework")

ResponseEvents = Callable[[str], AsyncGenerator[Json]]
"""Yields the events of a stored response by its id."""


class IdempotentRequest:
    """A request that is done once: new, a retry that goes on, or done (`reply` is there).

    `memory` holds the results of calls that an earlier try made.
    """

    def __init__(  # noqa: PLR0913 - new, continued and done requests differ in these
        self,
        store: Store,
        run_id: str,
        *,
        keyed: bool = False,
        seconds: float = IDEMPOTENCY_TTL,
        memory: dict[tuple[str, str], ToolResult] | None = None,
        reply: StoredReply | None = None,
    ) -> None:
        """`seconds` is how long the reply is kept, and the calls."""
        self.run_id = run_id
        self.memory = memory or {}
        self.reply = reply
        self.seconds = seconds
        self.response_id: str | None = None
        self._store: Store | None = store
        self._keyed = keyed
        self._join: Callable[[], Awaitable[None]] | None = None

    async def record(self, result: ToolResult) -> None:
        """Store the result of a call, for a retry of this request."""
        if self._store:
            await self._store.calls.save(self.run_id, result, self.response_id)

    def belong_to(self, response_id: str) -> None:
        """Have reply and calls deleted with a response."""
        self.response_id = response_id

    def keep_for_retries_only(self) -> None:
        """Keep only what a retry needs, if there can be one: the client wants nothing stored."""
        self.seconds = min(self.seconds, SDK_SECONDS)
        self._store = self._store if self._keyed else None

    def complete(self, reply: StoredReply) -> None:
        """Set the reply that a retry gets."""
        self.reply = reply

    def wait_for(self, run: ToolRun) -> None:
        """Hold the key until the calls have ended that outlive their client."""
        self._join = run.join

    async def join(self) -> None:
        """Return once no call of the request runs any more."""
        if self._join:
            await self._join()

    async def collect(
        self, chunks: AsyncGenerator[Json], stack: AsyncExitStack
    ) -> AsyncGenerator[Json]:
        """Yield the chunks of a stream; once it is complete, they are the reply."""
        sent: list[Json] = []
        async with stack, aclosing(chunks):
            async for chunk in chunks:
                sent.append(chunk)
                yield chunk
            self.complete(StoredReply(events=sent))


class IdempotencyKeys:
    """Acquires requests, by their key or as an SDK's retry."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._refused: cachetools.TTLCache[tuple[str, str, int], int]
        self._refused = cachetools.TTLCache(MAX_REFUSED, SDK_SECONDS)
        """How many attempts of an owner's body, by their number, were refused before they began."""

    def note_refused(self, request: Request, body: bytes) -> None:
        """Remember an SDK's attempt that is refused: its retry is a new request."""
        number = _attempt(request)
        if number is not None:
            key = (principal(request), hashlib.sha256(body).hexdigest(), number)
            self._refused[key] = self._refused.get(key, 0) + 1

    def _is_refused(self, owner: str, digest: str, number: int) -> bool:
        """Tell whether the attempt before was refused; each refusal has one retry."""
        key = (owner, digest, number - 1)
        count = self._refused.get(key, 0)
        if count > 1:
            self._refused[key] = count - 1
        elif count:
            del self._refused[key]
        return count > 0

    @asynccontextmanager
    async def acquire(
        self, request: Request, body: bytes, owner: str
    ) -> AsyncGenerator[IdempotentRequest]:
        """Hold the key of a request while it is done; at the end its reply is stored."""
        digest = hashlib.sha256(body).hexdigest()
        key = await self._key(request, owner, digest)
        if key is None:
            yield IdempotentRequest(self._store, new_id("run_"))
            return
        acquired = await self._wait(request, owner, key, digest)
        if acquired.reply is not None:
            telemetry.IDEMPOTENT_REPLAYS.inc()
            yield acquired
            return
        try:
            yield acquired
        finally:
            with anyio.CancelScope(shield=True):
                await acquired.join()
                try:
                    await self._store.idempotency.complete(
                        owner, key, acquired.reply, acquired.seconds, acquired.response_id
                    )
                except StorageUnavailable as error:  # it is kept in memory until it can be stored
                    log.warning(telemetry.LOG_NOT_STORED, reason=error.message)

    async def _key(self, request: Request, owner: str, digest: str) -> str | None:
        key = request.headers.get(IDEMPOTENCY_HEADER)
        if key is not None:
            if not 1 <= len(key) <= MAX_KEY_LENGTH:
                raise BadRequestError(
                    f"'{IDEMPOTENCY_HEADER}' should have 1 to {MAX_KEY_LENGTH} characters.",
                    IDEMPOTENCY_HEADER,
                )
            return key
        number = _attempt(request)
        if number is None:
            return None
        if number == 0 or self._is_refused(owner, digest, number):
            return new_id(SDK_PREFIX)
        known = await self._store.idempotency.latest(owner, digest, SDK_PREFIX)
        return known or new_id(SDK_PREFIX)

    async def _wait(self, request: Request, owner: str, key: str, digest: str) -> IdempotentRequest:
        run_id, pause = new_id("run_"), POLL_SECONDS
        patience = anyio.current_time() + MAX_WAIT_SECONDS
        while anyio.current_time() < patience:
            if acquired := await self._try(owner, key, digest, run_id):
                return acquired
            await cancel_on_disconnect(request, anyio.sleep(pause))  # the first try still runs
            pause = min(POLL_GROWTH * pause, LONGEST_POLL_SECONDS)
        raise ConflictError(
            "The same request is still being done. Ask again later.", IDEMPOTENCY_HEADER
        )

    async def _try(
        self, owner: str, key: str, digest: str, run_id: str
    ) -> IdempotentRequest | None:
        """Claim the key, or return what it got; None while it is somebody else's."""
        seconds = SDK_SECONDS if key.startswith(SDK_PREFIX) else IDEMPOTENCY_TTL
        earlier = await self._store.idempotency.claim(owner, key, digest, run_id, seconds)
        if earlier is None:
            return IdempotentRequest(self._store, run_id, keyed=True, seconds=seconds)
        if not earlier.same_body:
            message = "This Idempotency-Key was used for another request."
            raise BadRequestError(message, IDEMPOTENCY_HEADER, "idempotency_key_reused")
        if earlier.reply is not None:
            return IdempotentRequest(self._store, earlier.run_id, reply=earlier.reply)
        if earlier.running or not await self._store.idempotency.reclaim(owner, key):
            return None
        memory = await self._store.calls.load(earlier.run_id)
        return IdempotentRequest(
            self._store, earlier.run_id, keyed=True, seconds=seconds, memory=memory
        )


def _attempt(request: Request) -> int | None:
    """Return the number of an SDK's attempt, from 0; None where the client isn't an SDK."""
    count = request.headers.get(SDK_RETRIES)
    if count is None:
        return None
    return int(count) if count.isdecimal() else 1


async def replay(
    request: Request, reply: StoredReply, response_events: ResponseEvents | None = None
) -> Response:
    """Return the reply that the first try of a request got."""
    if reply.deleted:
        raise NotFoundError("The response to this request was deleted.")
    if reply.body is not None:
        return JSONResponse(reply.body, headers=REPLAYED_HEADER)
    if reply.response_id is not None and response_events:
        events = response_events(reply.response_id)
    else:
        events = _events(reply.events or ())
    response = await open_stream(request, events)
    response.headers.update(REPLAYED_HEADER)
    return response


async def _events(events: Sequence[Json]) -> AsyncGenerator[Json]:
    for event in events:
        await asyncio.sleep(0)
        yield event
