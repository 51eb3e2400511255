"""Requests that come again are answered again, not done again.

A client says so with an Idempotency-Key. OpenAI's SDKs send none, but they count their own retries:
the first retry of a body is the request before it.
"""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from starlette.requests import Request

from falsework.server.api.chat.objects import Json, new_id
from falsework.server.errors import BadRequestError, ConflictError
from falsework.server.http.sse import cancel_on_disconnect
from falsework.server.observability import telemetry
from falsework.server.storage.leases import IDEMPOTENCY_TTL
from falsework.server.storage.store import Store
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import ToolCall
from falsework.server.tools.tool_run import ToolRun

IDEMPOTENCY_HEADER = "idempotency-key"
MAX_KEY_LENGTH = 255
SDK_RETRIES = "x-stainless-retry-count"
SDK_PREFIX = "sdk_"
SDK_SECONDS = 900.0
"""How long after a request its SDK may ask again."""

MAX_WAIT_SECONDS = 600
POLL_SECONDS = 0.05
POLL_GROWTH = 1.5
LONGEST_POLL_SECONDS = 0.5


async def _at_once() -> None:
    """Wait for nothing."""


@dataclass
class IdempotentRequest:
    """A request that is to be done, or was done: then `reply` is what it got.

    `memory` are the calls that an earlier try made. Whoever does the request sets `reply`.
    """

    run_id: str
    memory: dict[tuple[str, str], ToolResult] = field(default_factory=dict)
    reply: Json | None = None
    replayed: bool = False
    response_id: str | None = None
    """The response that is kept, if there is one: once it is deleted, the reply is too."""

    seconds: float = IDEMPOTENCY_TTL
    """How long the reply is kept, and the calls."""

    records: Store | None = None
    """Where calls are kept, if they are."""

    keyed: bool = False
    settle: Callable[[], Awaitable[None]] = _at_once
    """Waits for calls that outlive their client, so that who comes again finds them done."""

    def attach_run(self, run: ToolRun) -> None:
        """Remember the calls of the run that does the request, and let it know those made."""

        async def record(outcome: ToolResult) -> None:
            if self.records:
                asked = ToolCall(outcome.call_id, outcome.tool, outcome.arguments)
                identity = run.dedup_key(asked)
                await self.records.save_call_result(run.id, identity[1], outcome, self.response_id)

        run.memory, run.record, self.settle = self.memory, record, run.join

    def keep_for_retries_only(self) -> None:
        """Keep only what a retry needs, if there can be one: nothing should be stored."""
        self.seconds = min(self.seconds, SDK_SECONDS)
        self.records = self.records if self.keyed else None


class IdempotencyKeys:
    """Claims requests, by their key or as an SDK's retry."""

    def __init__(self, records: Store) -> None:
        self._records = records

    @asynccontextmanager
    async def acquire(
        self, request: Request, body: bytes, owner: str
    ) -> AsyncGenerator[IdempotentRequest]:
        """Claim a request while it is done; its reply is kept at the end, if there is one."""
        digest = hashlib.sha256(body).hexdigest()
        key = await self._key(request, owner, digest)
        if key is None:
            yield IdempotentRequest(new_id("run_"), records=self._records)
            return
        claim = await self._claimed(request, owner, key, digest)
        if claim.replayed:
            telemetry.IDEMPOTENT_REPLAYS.inc()
            yield claim
            return
        try:
            yield claim
        finally:
            with anyio.CancelScope(shield=True):
                await claim.settle()
                await self._records.complete_key(
                    owner, key, claim.reply, claim.seconds, claim.response_id
                )

    async def _key(self, request: Request, owner: str, digest: str) -> str | None:
        key = request.headers.get(IDEMPOTENCY_HEADER)
        if key is not None:
            if not 1 <= len(key) <= MAX_KEY_LENGTH:
                raise BadRequestError(
                    f"'{IDEMPOTENCY_HEADER}' should have 1 to {MAX_KEY_LENGTH} characters.",
                    IDEMPOTENCY_HEADER,
                )
            return key
        count = request.headers.get(SDK_RETRIES)
        if count is None:
            return None
        again = await self._records.latest_key(owner, digest, SDK_PREFIX) if count != "0" else None
        return again or new_id(SDK_PREFIX)

    async def _claimed(
        self, request: Request, owner: str, key: str, digest: str
    ) -> IdempotentRequest:
        run_id, pause = new_id("run_"), POLL_SECONDS
        patience = anyio.current_time() + MAX_WAIT_SECONDS
        while anyio.current_time() < patience:
            if claim := await self._free(owner, key, digest, run_id):
                return claim
            await cancel_on_disconnect(
                request, anyio.sleep(pause)
            )  # the first try is still being done
            pause = min(POLL_GROWTH * pause, LONGEST_POLL_SECONDS)
        raise ConflictError(
            "The same request is still being done. Ask again later.", IDEMPOTENCY_HEADER
        )

    async def _free(
        self, owner: str, key: str, digest: str, run_id: str
    ) -> IdempotentRequest | None:
        """Claim the key, or return what it got; None while it is somebody else's."""
        seconds = SDK_SECONDS if key.startswith(SDK_PREFIX) else IDEMPOTENCY_TTL
        earlier = await self._records.claim_key(owner, key, digest, run_id, seconds)
        if earlier is None:
            return IdempotentRequest(run_id, seconds=seconds, records=self._records, keyed=True)
        if not earlier.same_body:
            message = "This Idempotency-Key was used for another request."
            raise BadRequestError(message, IDEMPOTENCY_HEADER, "idempotency_key_reused")
        if earlier.reply is not None:
            return IdempotentRequest(earlier.run_id, reply=earlier.reply, replayed=True)
        if earlier.running or not await self._records.reclaim_key(owner, key):
            return None
        known = await self._records.get_call_results(earlier.run_id)
        return IdempotentRequest(
            earlier.run_id, known, seconds=seconds, records=self._records, keyed=True
        )
