"""Requests that come again are answered again, not done again.

A client says so with an Idempotency-Key. OpenAI's SDKs send none, but they count their own retries:
the first retry of a body is the request before it.
"""

import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import cachetools

from falsework.runtime import telemetry
from falsework.runtime.outcomes import Outcome
from falsework.server.records import Records
from falsework.server.refusals import BadRequest, StillRunning
from falsework.server.replies import Json, new_id

HEADER = "idempotency-key"
SDK_RETRIES = "x-stainless-retry-count"
LONGEST_KEY = 255
SDK_SECONDS = 900
"""How long after a request its SDK may ask again."""

PATIENCE_SECONDS = 600
POLL_SECONDS = 0.05


async def _at_once() -> None:
    """Wait for nothing."""


@dataclass
class Claim:
    """A request that is to be done, or was done: then `reply` is what it got.

    `memory` are the calls that an earlier try made. Whoever does the request sets `reply`.
    """

    run_id: str
    memory: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    reply: Json | None = None
    replayed: bool = False
    settle: Callable[[], Awaitable[None]] = _at_once
    """Waits for calls that outlive their client, so that who comes again finds them done."""


class Keys:
    """Claims requests, by their key or as an SDK's retry."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._recent: cachetools.TTLCache[tuple[str, str], str] = cachetools.TTLCache(
            10_000, SDK_SECONDS, time.monotonic
        )

    @asynccontextmanager
    async def claim(
        self, headers: Mapping[str, str], body: bytes, owner: str
    ) -> AsyncGenerator[Claim]:
        """Claim a request while it is done; its reply is kept at the end, if there is one."""
        digest = hashlib.sha256(body).hexdigest()
        key = self._key(headers, owner, digest)
        if key is None:
            yield Claim(new_id("run_"))
            return
        claim = await self._claimed(owner, key, digest)
        if claim.replayed:
            telemetry.REPLAYS.inc()
            yield claim
            return
        try:
            yield claim
        finally:
            with anyio.CancelScope(shield=True):
                await claim.settle()
                await self._records.end(owner, key, claim.reply)

    def _key(self, headers: Mapping[str, str], owner: str, digest: str) -> str | None:
        key = headers.get(HEADER)
        if key is not None:
            if not 1 <= len(key) <= LONGEST_KEY:
                raise BadRequest(f"'{HEADER}' should have 1 to {LONGEST_KEY} characters.", HEADER)
            return key
        count = headers.get(SDK_RETRIES)
        if count is None:
            return None
        again = self._recent.get((owner, digest)) if count != "0" else None
        key = again or new_id("sdk_")
        self._recent[owner, digest] = key
        return key

    async def _claimed(self, owner: str, key: str, digest: str) -> Claim:
        run_id = new_id("run_")
        patience = anyio.current_time() + PATIENCE_SECONDS
        while anyio.current_time() < patience:
            earlier = await self._records.begin(owner, key, digest, run_id)
            if earlier is None:
                return Claim(run_id)
            if not earlier.same_body:
                message = "This Idempotency-Key was used for another request."
                raise BadRequest(message, HEADER, "idempotency_key_reused")
            if earlier.reply is not None:
                return Claim(earlier.run_id, reply=earlier.reply, replayed=True)
            if not earlier.running:
                await self._records.take_up(owner, key)
                return Claim(earlier.run_id, await self._records.outcomes(earlier.run_id))
            await anyio.sleep(POLL_SECONDS)  # the first try is still being done
        raise StillRunning("The same request is still being done. Ask again later.", HEADER)
