"""Idempotency keys: who holds one, and the reply of the request that held it."""

import time
from dataclasses import dataclass
from typing import Any

import cachetools
import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from falsework.server.storage.errors import StorageUnavailable
from falsework.server.storage.leases import IDEMPOTENCY_TTL
from falsework.server.storage.replies import TOMBSTONE, StoredReply
from falsework.server.storage.schema import UPSERTS, requests, responses
from falsework.server.storage.table_group import TableGroup
from falsework.server.types import Json

MAX_CLAIMED = 10_000
MAX_PENDING = 1000


@dataclass(frozen=True)
class IdempotencyEntry:
    """What became of an earlier request with the same key."""

    run_id: str
    same_body: bool
    running: bool
    reply: StoredReply | None


@dataclass(frozen=True)
class _Completion:
    """The end of a request that isn't stored yet."""

    body_hash: str
    run_id: str
    reply: StoredReply | None
    seconds: float
    response_id: str | None


class IdempotencyTable(TableGroup):
    """The keys of all owners.

    A reply that can't be stored is kept in memory until `flush` can store it, and given again.
    """

    def __init__(self, engine: AsyncEngine, instance: str) -> None:
        super().__init__(engine, instance)
        self._claimed: cachetools.LRUCache[tuple[str, str], tuple[str, str]]
        self._claimed = cachetools.LRUCache(MAX_CLAIMED)
        """Body hash and run id of keys that this server holds."""
        self._pending: cachetools.LRUCache[tuple[str, str], _Completion]
        self._pending = cachetools.LRUCache(MAX_PENDING)

    async def claim(
        self, owner: str, key: str, body_hash: str, run_id: str, seconds: float = IDEMPOTENCY_TTL
    ) -> IdempotencyEntry | None:
        """Claim a key; where it was claimed before, return what became of that.

        `seconds` is how long it stays claimed.
        """
        if pending := self._pending.get((owner, key)):
            same = pending.body_hash == body_hash
            return IdempotencyEntry(pending.run_id, same, running=False, reply=pending.reply)
        now = time.time()
        values = {
            "owner": owner,
            "key": key,
            "body_hash": body_hash,
            "run_id": run_id,
            "instance": self._instance,
            "created": now,
            "running": True,
            "reply": None,
            "expires": now + seconds,
        }
        insert = UPSERTS[self._engine.dialect.name](requests).values(values)
        while True:
            async with self._write() as connection:
                if (await connection.execute(insert.on_conflict_do_nothing())).rowcount:
                    self._claimed[owner, key] = body_hash, run_id
                    return None
                found = await connection.execute(sql.select(requests).where(_is(owner, key)))
                row = found.one_or_none()
            if row is not None:  # otherwise it has expired since
                reply = StoredReply.load(row.reply) if row.reply else None
                return IdempotencyEntry(row.run_id, row.body_hash == body_hash, row.running, reply)

    async def reclaim(self, owner: str, key: str) -> bool:
        """Claim a key anew whose earlier request ended without a reply; one of many succeeds."""
        ended = _is(owner, key) & ~requests.c.running & requests.c.reply.is_(None)
        return await self._update(ended, {"running": True, "instance": self._instance})

    async def complete(
        self,
        owner: str,
        key: str,
        reply: StoredReply | None,
        seconds: float = IDEMPOTENCY_TTL,
        response_id: str | None = None,
    ) -> None:
        """Store the reply under its key for so long; None where there is none to give again.

        Of a response that was deleted meanwhile nothing is kept.
        """
        body_hash, run_id = self._claimed.pop((owner, key), ("", ""))
        completion = _Completion(body_hash, run_id, reply, seconds, response_id)
        try:
            await self._complete(owner, key, completion)
        except StorageUnavailable:
            if reply is not None and run_id:
                self._pending[owner, key] = completion
            raise

    async def flush(self) -> None:
        """Store what couldn't be stored before."""
        for (owner, key), completion in list(self._pending.items()):
            await self._complete(owner, key, completion)
            self._pending.pop((owner, key), None)

    async def _complete(self, owner: str, key: str, completion: _Completion) -> None:
        mine = _is(owner, key) & (requests.c.instance == self._instance)
        reply, response_id = completion.reply, completion.response_id
        stored: Any = reply.dump() if reply is not None else None
        if response_id:
            there = (responses.c.id == response_id) & (responses.c.owner == owner)
            given = (sql.exists().where(there), sql.literal(stored, sql.Text))
            stored = sql.case(given, else_=TOMBSTONE.dump())
        values = {
            "running": False,
            "reply": stored,
            "response_id": response_id,
            "expires": time.time() + completion.seconds,
        }
        await self._update(mine, values)

    async def latest(self, owner: str, body_hash: str, prefix: str) -> str | None:
        """Return the key that a request with this body had last, among those with the prefix."""
        same = (requests.c.owner == owner) & (requests.c.body_hash == body_hash)
        query = sql.select(requests.c.key).where(same & requests.c.key.startswith(prefix))
        async with self._read() as connection:
            found = await connection.execute(query.order_by(requests.c.created.desc()).limit(1))
            key: str | None = found.scalar_one_or_none()
        return key

    async def _update(self, where: sql.ColumnElement[bool], values: Json) -> bool:
        async with self._write() as connection:
            query = sql.update(requests).where(where).values(values)
            return bool((await connection.execute(query)).rowcount)


def _is(owner: str, key: str) -> sql.ColumnElement[bool]:
    return (requests.c.owner == owner) & (requests.c.key == key)
