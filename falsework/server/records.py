"""What outlives a request, in SQLite or PostgreSQL: responses, keyed requests, calls made."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import anyio
import sqlalchemy as sql
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from falsework.runtime.outcomes import Outcome
from falsework.server.rows import interrupted, known, told
from falsework.server.settings import BadSetting
from falsework.server.tables import DRIVERS, INSERTS, instances, make, outcomes, requests, responses

Json = dict[str, Any]

KEPT_SECONDS = 30 * 86400.0

KEY_SECONDS = 86400.0
"""How long a key is known by itself."""

BEAT_SECONDS = 5.0
LEASE_SECONDS = 30.0
"""A server that wasn't seen for so long has ended, and others end what it left open."""

DELETED: Json = {"deleted": True}
"""Stands for the reply whose response was deleted: the key stays taken."""

log = structlog.get_logger("falsework")


@dataclass(frozen=True)
class StoredResponse:
    """A response as it is kept; `history` are the items of the conversation, this one included."""

    body: Json
    input: list[Json]
    history: list[Json]
    events: list[Json]
    running: bool


@dataclass(frozen=True)
class Keyed:
    """What became of an earlier request with the same key."""

    run_id: str
    same_body: bool
    running: bool
    reply: Json | None


class Records:
    """The database; made by `opened`."""

    def __init__(self, engine: AsyncEngine, instance: str) -> None:
        """`instance` tells this server's unfinished work from that of others on the database."""
        self._engine = engine
        self._instance = instance

    @classmethod
    async def opened(cls, url: str, instance: str) -> Self:
        """Connect, make the tables, and end what an earlier process of this instance left open."""
        address = sql.make_url(url)
        if address.drivername not in DRIVERS:
            raise BadSetting("database: should begin with sqlite:// or postgresql://")
        engine = create_async_engine(address.set(drivername=DRIVERS[address.drivername]))
        made = cls(engine, instance)
        try:
            if address.drivername == "sqlite" and address.database:
                Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            async with engine.begin() as connection:
                if engine.dialect.name == "sqlite":
                    await connection.execute(sql.text("PRAGMA journal_mode=WAL"))
                await connection.run_sync(make)
        except (SQLAlchemyError, OSError) as fault:
            await engine.dispose()
            message = (
                f"database: {address.render_as_string()} can't be used: {type(fault).__name__}"
            )
            raise BadSetting(message) from fault
        await made.tidy(restarted=True)
        return made

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def attend(self) -> None:
        """Tell others that this server lives, and tidy up after those that don't; for ever."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            try:
                await self.tidy()
            except (SQLAlchemyError, OSError) as fault:
                log.warning("database not reached", error=type(fault).__name__)

    async def keep(  # noqa: PLR0913 - a row has that many columns
        self, owner: str, body: Json, asked: Sequence[Json], history: Sequence[Json],
        events: Sequence[Json] = (), *, running: bool,
    ) -> None:  # fmt: skip
        """Keep a response, or what it has become."""
        values = {
            "owner": owner, "instance": self._instance, "created": time.time(), "running": running,
            "body": json.dumps(body), "input": json.dumps(list(asked)),
            "history": json.dumps(list(history)), "events": json.dumps(list(events)),
        }  # fmt: skip
        await self._upsert(responses, {"id": body["id"]}, values)

    async def response(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response of this owner."""
        where = (responses.c.id == response_id) & (responses.c.owner == owner)
        async with self._engine.connect() as connection:
            row = (await connection.execute(sql.select(responses).where(where))).one_or_none()
        if row is None:
            return None
        return StoredResponse(
            json.loads(row.body), json.loads(row.input), json.loads(row.history),
            json.loads(row.events), row.running,
        )  # fmt: skip

    async def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response of this owner, and its copies; tell whether there was one."""
        where = (responses.c.id == response_id) & (responses.c.owner == owner)
        copies = (requests.c.response_id == response_id) & (requests.c.owner == owner)
        async with self._engine.begin() as connection:
            there = bool((await connection.execute(sql.delete(responses).where(where))).rowcount)
            await _forget_calls(connection, copies)
            emptied = sql.update(requests).where(copies).values(reply=json.dumps(DELETED))
            await connection.execute(emptied)
        return there

    async def begin(
        self, owner: str, key: str, body_hash: str, run_id: str, seconds: float = KEY_SECONDS
    ) -> Keyed | None:
        """Claim a key; where it was claimed before, return what became of that.

        `seconds` is how long it stays claimed.
        """
        now = time.time()
        values = {
            "owner": owner, "key": key, "body_hash": body_hash, "run_id": run_id,
            "instance": self._instance, "created": now, "running": True, "reply": None,
            "expires": now + seconds,
        }  # fmt: skip
        insert = INSERTS[self._engine.dialect.name](requests).values(values)
        while True:
            async with self._engine.begin() as connection:
                if (await connection.execute(insert.on_conflict_do_nothing())).rowcount:
                    return None
                found = await connection.execute(sql.select(requests).where(_named(owner, key)))
                row = found.one_or_none()
            if row is not None:  # otherwise it has expired since
                reply = json.loads(row.reply) if row.reply else None
                return Keyed(row.run_id, row.body_hash == body_hash, row.running, reply)

    async def take_up(self, owner: str, key: str) -> bool:
        """Claim a key anew whose earlier request ended without a reply; one of many succeeds."""
        ended = _named(owner, key) & ~requests.c.running & requests.c.reply.is_(None)
        return await self._settle(ended, {"running": True, "instance": self._instance})

    async def end(
        self, owner: str, key: str, reply: Json | None, seconds: float = KEY_SECONDS,
        response_id: str | None = None,
    ) -> None:  # fmt: skip
        """Keep the reply under its key for so long; None where there is none to give again.

        Of a response that was deleted meanwhile nothing is kept.
        """
        mine = _named(owner, key) & (requests.c.instance == self._instance)
        kept: Any = json.dumps(reply) if reply is not None else None
        if response_id:
            there = (responses.c.id == response_id) & (responses.c.owner == owner)
            given = (sql.exists().where(there), sql.literal(kept, sql.Text))
            kept = sql.case(given, else_=json.dumps(DELETED))
        values = {"running": False, "reply": kept, "response_id": response_id,
                  "expires": time.time() + seconds}  # fmt: skip
        await self._settle(mine, values)

    async def latest(self, owner: str, body_hash: str, prefix: str) -> str | None:
        """Return the key that a request with this body had last, among those with the prefix."""
        same = (requests.c.owner == owner) & (requests.c.body_hash == body_hash)
        query = sql.select(requests.c.key).where(same & requests.c.key.startswith(prefix))
        async with self._engine.connect() as connection:
            found = await connection.execute(query.order_by(requests.c.created.desc()).limit(1))
            key: str | None = found.scalar_one_or_none()
        return key

    async def record(self, run_id: str, canonical: str, outcome: Outcome) -> None:
        """Keep the outcome of a call."""
        # Ids may be the client's, of any length; text of any kind is safe as escaped JSON alone.
        name = hashlib.sha256(outcome.call_id.encode()).hexdigest()
        values = {"created": time.time(), "tool": outcome.tool, "canonical": "",
                  "outcome": told(outcome, canonical)}  # fmt: skip
        await self._upsert(outcomes, {"run_id": run_id, "call_id": name}, values)

    async def outcomes(self, run_id: str) -> dict[tuple[str, str], Outcome]:
        """Return what was done in a run, by tool and canonical arguments."""
        where = sql.select(outcomes).where(outcomes.c.run_id == run_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(where.order_by(outcomes.c.created))).all()
        return dict(known(row) for row in rows)

    async def tidy(self, *, restarted: bool = False) -> None:
        """Tell that this server lives, end what those left open that don't, forget what is old.

        `restarted`: what has this server's name was left by the process before it.
        """
        now = time.time()
        seen = instances.c.seen >= now - LEASE_SECONDS
        alive = sql.select(instances.c.name).where(seen)
        others = alive.where(instances.c.name != self._instance)
        async with self._engine.begin() as connection:
            me = {"name": self._instance, "seen": now}
            beat = INSERTS[self._engine.dialect.name](instances).values(me)
            await connection.execute(
                beat.on_conflict_do_update(index_elements=["name"], set_={"seen": now})
            )
            await _end_others(connection, others if restarted else alive)
            old = (requests.c.expires < now) & ~requests.c.running
            await _forget_calls(connection, old)
            await connection.execute(sql.delete(requests).where(old))
            oldest = now - KEPT_SECONDS
            await connection.execute(sql.delete(responses).where(responses.c.created < oldest))
            await connection.execute(sql.delete(instances).where(~seen))

    async def _settle(self, where: sql.ColumnElement[bool], values: Json) -> bool:
        async with self._engine.begin() as connection:
            query = sql.update(requests).where(where).values(values)
            return bool((await connection.execute(query)).rowcount)

    async def _upsert(self, table: sql.Table, names: Json, values: Json) -> None:
        insert = INSERTS[self._engine.dialect.name](table).values({**names, **values})
        async with self._engine.begin() as connection:
            await connection.execute(
                insert.on_conflict_do_update(index_elements=list(names), set_=values)
            )


def _named(owner: str, key: str) -> sql.ColumnElement[bool]:
    return (requests.c.owner == owner) & (requests.c.key == key)


async def _forget_calls(connection: AsyncConnection, of: sql.ColumnElement[bool]) -> None:
    runs = sql.select(requests.c.run_id).where(of)
    await connection.execute(sql.delete(outcomes).where(outcomes.c.run_id.in_(runs)))


async def _end_others(connection: AsyncConnection, alive: sql.Select[Any]) -> None:
    """End what is running at servers that aren't alive."""
    left = requests.c.running & requests.c.instance.not_in(alive)
    await connection.execute(sql.update(requests).where(left).values(running=False))
    left = responses.c.running & responses.c.instance.not_in(alive)
    for row in (await connection.execute(sql.select(responses).where(left))).all():
        ended = json.dumps(interrupted(json.loads(row.body)))
        query = sql.update(responses).where(responses.c.id == row.id)
        await connection.execute(query.values(running=False, body=ended))
