"""Idempotency keys: who holds one, and the reply of the request that held it."""

import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from falsework.server.storage.leases import IDEMPOTENCY_TTL
from falsework.server.storage.replies import TOMBSTONE, StoredReply
from falsework.server.storage.schema import UPSERTS, requests, responses
from falsework.server.storage.table_group import TableGroup
from falsework.server.types import Json


@dataclass(frozen=True)
class IdempotencyEntry:
    """What became of an earlier request with the same key."""

    run_id: str
    same_body: bool
    running: bool
    reply: StoredReply | None


class IdempotencyTable(TableGroup):
    """The keys of all owners."""

    async def claim(
        self, owner: str, key: str, body_hash: str, run_id: str, seconds: float = IDEMPOTENCY_TTL
    ) -> IdempotencyEntry | None:
        """Claim a key; where it was claimed before, return what became of that.

        `seconds` is how long it stays claimed.
        """
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
            async with self._engine.begin() as connection:
                if (await connection.execute(insert.on_conflict_do_nothing())).rowcount:
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
        mine = _is(owner, key) & (requests.c.instance == self._instance)
        stored: Any = reply.dump() if reply is not None else None
        if response_id:
            there = (responses.c.id == response_id) & (responses.c.owner == owner)
            given = (sql.exists().where(there), sql.literal(stored, sql.Text))
            stored = sql.case(given, else_=TOMBSTONE.dump())
        values = {
            "running": False,
            "reply": stored,
            "response_id": response_id,
            "expires": time.time() + seconds,
        }
        await self._update(mine, values)

    async def latest(self, owner: str, body_hash: str, prefix: str) -> str | None:
        """Return the key that a request with this body had last, among those with the prefix."""
        same = (requests.c.owner == owner) & (requests.c.body_hash == body_hash)
        query = sql.select(requests.c.key).where(same & requests.c.key.startswith(prefix))
        async with self._engine.connect() as connection:
            found = await connection.execute(query.order_by(requests.c.created.desc()).limit(1))
            key: str | None = found.scalar_one_or_none()
        return key

    async def _update(self, where: sql.ColumnElement[bool], values: Json) -> bool:
        async with self._engine.begin() as connection:
            query = sql.update(requests).where(where).values(values)
            return bool((await connection.execute(query)).rowcount)


def _is(owner: str, key: str) -> sql.ColumnElement[bool]:
    return (requests.c.owner == owner) & (requests.c.key == key)
