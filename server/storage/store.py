"""What outlives a request, in SQLite or PostgreSQL: responses, keyed requests, calls made."""

from falsework.server.types import Json
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
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from falsework.server.observability import telemetry
from falsework.server.settings import ConfigError
from falsework.server.storage import leases
from falsework.server.storage.leases import IDEMPOTENCY_TTL, sweep
from falsework.server.storage.schema import (
    DRIVERS,
    UPSERTS,
    approvals,
    instances,
    migrate,
    outcomes,
    requests,
    responses,
    turns,
)
from falsework.server.storage.serialization import dump_result, load_result
from falsework.server.tools.results import ToolResult


SINGLE_CONNECTION: Json = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
"""A database in memory is one connection: what one rolls back mustn't be another's."""

TOMBSTONE: Json = {"deleted": True}
"""Stands for the reply whose response was deleted: the key stays taken."""

log = structlog.get_logger("falsework")


@dataclass(frozen=True)
class StoredResponse:
    """A response as it is kept; `history` are the conversation's items before its output."""

    body: Json
    input: list[Json]
    history: list[Json]
    events: list[Json]
    running: bool


@dataclass(frozen=True)
class IdempotencyEntry:
    """What became of an earlier request with the same key."""

    run_id: str
    same_body: bool
    running: bool
    reply: Json | None


class Store:
    """The database; made by `opened`."""

    def __init__(self, engine: AsyncEngine, instance: str) -> None:
        """`instance` tells this server's unfinished work from that of others on the database."""
        self._engine = engine
        self._instance = instance

    @classmethod
    async def connect(cls, url: str, instance: str) -> Self:
        """Connect, make the tables, and end what an earlier process of this instance left open."""
        address = sql.make_url(url)
        if address.drivername not in DRIVERS:
            raise ConfigError("database: should begin with sqlite:// or postgresql://")
        in_memory = address.drivername == "sqlite" and not address.database
        engine = create_async_engine(
            address.set(drivername=DRIVERS[address.drivername]),
            hide_parameters=True,  # errors are logged, requests aren't
            **(SINGLE_CONNECTION if in_memory else {}),
        )
        made = cls(engine, instance)
        try:
            if address.drivername == "sqlite" and address.database:
                Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            async with engine.begin() as connection:
                if engine.dialect.name == "sqlite":
                    await connection.execute(sql.text("PRAGMA journal_mode=WAL"))
                await connection.run_sync(migrate)
        except (SQLAlchemyError, OSError) as fault:
            await engine.dispose()
            message = (
                f"database: {address.render_as_string()} can't be used: {type(fault).__name__}"
            )
            raise ConfigError(message) from fault
        await made.sweep(restarted=True)
        return made

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def heartbeat_loop(self) -> None:
        """Tell others that this server lives, and tidy up after those that don't; for ever."""
        while True:
            await anyio.sleep(leases.HEARTBEAT_SECONDS)
            try:
                await self.sweep()
            except Exception:
                # The outermost handler of a task that nobody waits for.
                log.exception(telemetry.LOG_SWEEP_FAILED)

    async def save_response(  # noqa: PLR0913 - a row has that many columns
        self, owner: str, body: Json, asked: Sequence[Json], history: Sequence[Json],
        events: Sequence[Json] = (), *, running: bool,
    ) -> None:  # fmt: skip
        """Keep a response."""
        values = {
            "owner": owner, "instance": self._instance, "created": time.time(), "running": running,
            "body": json.dumps(body), "input": json.dumps(list(asked)),
            "history": json.dumps(list(history)), "events": json.dumps(list(events)),
        }  # fmt: skip
        await self._upsert(responses, {"id": body["id"]}, values)

    async def update_response(
        self, owner: str, body: Json, events: Sequence[Json], *, running: bool
    ) -> None:
        """Keep what a response has become; one that was deleted stays so."""
        where = (responses.c.id == body["id"]) & (responses.c.owner == owner)
        values = {"running": running, "body": json.dumps(body), "events": json.dumps(list(events))}
        async with self._engine.begin() as connection:
            await connection.execute(sql.update(responses).where(where).values(values))

    async def get_response(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response of this owner."""
        if "\0" in response_id:  # which PostgreSQL takes for no text at all
            return None
        where = (responses.c.id == response_id) & (responses.c.owner == owner)
        async with self._engine.connect() as connection:
            row = (await connection.execute(sql.select(responses).where(where))).one_or_none()
        if row is None:
            return None
        return StoredResponse(
            json.loads(row.body), json.loads(row.input), json.loads(row.history),
            json.loads(row.events), row.running,
        )  # fmt: skip

    async def delete_response(self, owner: str, response_id: str) -> bool:
        """Delete a response of this owner, and its copies; tell whether there was one."""
        if not await self.get_response(owner, response_id):
            return False
        where = (responses.c.id == response_id) & (responses.c.owner == owner)
        copies = (requests.c.response_id == response_id) & (requests.c.owner == owner)
        emptied = sql.update(requests).where(copies).values(reply=json.dumps(TOMBSTONE))
        async with self._engine.begin() as connection:
            there = bool((await connection.execute(sql.delete(responses).where(where))).rowcount)
            if there:
                calls = outcomes.c.response_id == response_id
                await connection.execute(sql.delete(outcomes).where(calls))
                await connection.execute(emptied)
        return there

    async def claim_key(
        self, owner: str, key: str, body_hash: str, run_id: str, seconds: float = IDEMPOTENCY_TTL
    ) -> IdempotencyEntry | None:
        """Claim a key; where it was claimed before, return what became of that.

        `seconds` is how long it stays claimed.
        """
        now = time.time()
        values = {
            "owner": owner, "key": key, "body_hash": body_hash, "run_id": run_id,
            "instance": self._instance, "created": now, "running": True, "reply": None,
            "expires": now + seconds,
        }  # fmt: skip
        insert = UPSERTS[self._engine.dialect.name](requests).values(values)
        while True:
            async with self._engine.begin() as connection:
                if (await connection.execute(insert.on_conflict_do_nothing())).rowcount:
                    return None
                found = await connection.execute(sql.select(requests).where(_named(owner, key)))
                row = found.one_or_none()
            if row is not None:  # otherwise it has expired since
                reply = json.loads(row.reply) if row.reply else None
                return IdempotencyEntry(row.run_id, row.body_hash == body_hash, row.running, reply)

    async def reclaim_key(self, owner: str, key: str) -> bool:
        """Claim a key anew whose earlier request ended without a reply; one of many succeeds."""
        ended = _named(owner, key) & ~requests.c.running & requests.c.reply.is_(None)
        return await self._settle(ended, {"running": True, "instance": self._instance})

    async def complete_key(
        self, owner: str, key: str, reply: Json | None, seconds: float = IDEMPOTENCY_TTL,
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
            kept = sql.case(given, else_=json.dumps(TOMBSTONE))
        values = {"running": False, "reply": kept, "response_id": response_id,
                  "expires": time.time() + seconds}  # fmt: skip
        await self._settle(mine, values)

    async def latest_key(self, owner: str, body_hash: str, prefix: str) -> str | None:
        """Return the key that a request with this body had last, among those with the prefix."""
        same = (requests.c.owner == owner) & (requests.c.body_hash == body_hash)
        query = sql.select(requests.c.key).where(same & requests.c.key.startswith(prefix))
        async with self._engine.connect() as connection:
            found = await connection.execute(query.order_by(requests.c.created.desc()).limit(1))
            key: str | None = found.scalar_one_or_none()
        return key

    async def save_call_result(
        self, run_id: str, canonical: str, outcome: ToolResult, response_id: str | None = None
    ) -> None:
        """Keep the outcome of a call, which is deleted with its response."""
        # Ids may be the client's, of any length; text of any kind is safe as escaped JSON alone.
        name = hashlib.sha256(outcome.call_id.encode()).hexdigest()
        values = {
            "created": time.time(),
            "tool": outcome.tool,
            "canonical": "",
            "outcome": dump_result(outcome, canonical),
            "response_id": response_id,
        }
        await self._upsert(outcomes, {"run_id": run_id, "call_id": name}, values)

    async def get_call_results(self, run_id: str) -> dict[tuple[str, str], ToolResult]:
        """Return what was done in a run, by tool and canonical arguments."""
        where = sql.select(outcomes).where(outcomes.c.run_id == run_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(where.order_by(outcomes.c.created))).all()
        return dict(load_result(row) for row in rows)

    async def save_executed_calls(self, owner: str, call_id: str, executed: Sequence[Json]) -> None:
        """Keep what the server ran in a turn whose first call for the client has that id."""
        values = {"created": time.time(), "executed": json.dumps(list(executed))}
        await self._upsert(turns, {"owner": owner, "call_id": call_id}, values)

    async def get_executed_calls(
        self, owner: str, call_ids: Sequence[str]
    ) -> dict[str, list[Json]]:
        """Return what the server ran in such turns, by those ids."""
        if not call_ids:
            return {}
        where = (turns.c.owner == owner) & turns.c.call_id.in_(call_ids)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(sql.select(turns).where(where))).all()
        return {row.call_id: json.loads(row.executed) for row in rows}

    async def create_approval(self, owner: str, request_id: str, seal: str) -> None:
        """Keep that a call waits for approval; `seal` tells whether it is still the same call."""
        values = {"seal": seal, "created": time.time()}
        await self._upsert(approvals, {"owner": owner, "id": request_id}, values)

    async def consume_approval(
        self, owner: str, request_id: str, seal: str, run_id: str
    ) -> str | None:
        """Answer a request for approval, once; return the run that did, None for no such call."""
        asked = approvals.c
        where = (asked.owner == owner) & (asked.id == request_id) & (asked.seal == seal)
        free = where & asked.run_id.is_(None)
        async with self._engine.begin() as connection:
            await connection.execute(sql.update(approvals).where(free).values(run_id=run_id))
            taken = await connection.execute(sql.select(asked.run_id).where(where))
            return taken.scalar_one_or_none()

    async def sweep(self, *, restarted: bool = False) -> None:
        """Tell that this server lives, end what those left open that don't, forget what is old.

        `restarted`: what has this server's name was left by the process before it.
        """
        async with self._engine.begin() as connection:
            insert = UPSERTS[self._engine.dialect.name](instances)
            await sweep(connection, insert, self._instance, restarted=restarted)

    async def _settle(self, where: sql.ColumnElement[bool], values: Json) -> bool:
        async with self._engine.begin() as connection:
            query = sql.update(requests).where(where).values(values)
            return bool((await connection.execute(query)).rowcount)

    async def _upsert(self, table: sql.Table, names: Json, values: Json) -> None:
        insert = UPSERTS[self._engine.dialect.name](table).values({**names, **values})
        async with self._engine.begin() as connection:
            await connection.execute(
                insert.on_conflict_do_update(index_elements=list(names), set_=values)
            )


def _named(owner: str, key: str) -> sql.ColumnElement[bool]:
    return (requests.c.owner == owner) & (requests.c.key == key)
