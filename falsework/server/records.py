"""What outlives a request, in SQLite or PostgreSQL: responses, keyed requests, calls made."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from falsework.runtime.faults import Fault
from falsework.runtime.outcomes import Outcome
from falsework.server.settings import BadSetting

Json = dict[str, Any]

KEPT_SECONDS = 30 * 86400.0

_tables = sql.MetaData()
_responses = sql.Table(
    "falsework_responses",
    _tables,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("owner", sql.String(64), nullable=False),
    sql.Column("instance", sql.String(128), nullable=False),
    sql.Column("created", sql.Float, nullable=False),
    sql.Column("running", sql.Boolean, nullable=False),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("input", sql.Text, nullable=False),
    sql.Column("history", sql.Text, nullable=False),
    sql.Column("events", sql.Text, nullable=False),
)
_requests = sql.Table(
    "falsework_requests",
    _tables,
    sql.Column("owner", sql.String(64), primary_key=True),
    sql.Column("key", sql.String(255), primary_key=True),
    sql.Column("body_hash", sql.String(64), nullable=False),
    sql.Column("run_id", sql.String(64), nullable=False),
    sql.Column("instance", sql.String(128), nullable=False),
    sql.Column("created", sql.Float, nullable=False),
    sql.Column("running", sql.Boolean, nullable=False),
    sql.Column("reply", sql.Text),
)
_outcomes = sql.Table(
    "falsework_outcomes",
    _tables,
    sql.Column("run_id", sql.String(64), primary_key=True),
    sql.Column("call_id", sql.String(64), primary_key=True),
    sql.Column("created", sql.Float, nullable=False),
    sql.Column("tool", sql.String(64), nullable=False),
    sql.Column("canonical", sql.Text, nullable=False),
    sql.Column("outcome", sql.Text, nullable=False),
)
_approvals = sql.Table(
    "falsework_approvals",
    _tables,
    sql.Column("owner", sql.String(64), primary_key=True),
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("seal", sql.String(64), nullable=False),
    sql.Column("created", sql.Float, nullable=False),
    sql.Column("run_id", sql.String(64)),
)

DRIVERS: Mapping[str, str] = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
INSERTS: Mapping[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


@dataclass(frozen=True)
class StoredResponse:
    """A response as it is kept; `history` are the conversation's items before its output."""

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
        engine = create_async_engine(
            address.set(drivername=DRIVERS[address.drivername]), hide_parameters=True
        )
        made = cls(engine, instance)
        try:
            if address.drivername == "sqlite" and address.database:
                Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            async with engine.begin() as connection:
                if engine.dialect.name == "sqlite":
                    await connection.execute(sql.text("PRAGMA journal_mode=WAL"))
                await connection.run_sync(_tables.create_all)
        except (SQLAlchemyError, OSError) as fault:
            await engine.dispose()
            message = (
                f"database: {address.render_as_string()} can't be used: {type(fault).__name__}"
            )
            raise BadSetting(message) from fault
        await made._tidy()
        return made

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def keep(  # noqa: PLR0913 - a row has that many columns
        self, owner: str, body: Json, asked: Sequence[Json], history: Sequence[Json],
        events: Sequence[Json] = (), *, running: bool,
    ) -> None:  # fmt: skip
        """Keep a response."""
        values = {
            "owner": owner, "instance": self._instance, "created": time.time(), "running": running,
            "body": json.dumps(body), "input": json.dumps(list(asked)),
            "history": json.dumps(list(history)), "events": json.dumps(list(events)),
        }  # fmt: skip
        await self._upsert(_responses, {"id": body["id"]}, values)

    async def change(
        self, owner: str, body: Json, events: Sequence[Json], *, running: bool
    ) -> None:
        """Keep what a response has become; one that was deleted stays so."""
        where = (_responses.c.id == body["id"]) & (_responses.c.owner == owner)
        values = {"running": running, "body": json.dumps(body), "events": json.dumps(list(events))}
        async with self._engine.begin() as connection:
            await connection.execute(sql.update(_responses).where(where).values(values))

    async def response(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response of this owner."""
        where = (_responses.c.id == response_id) & (_responses.c.owner == owner)
        row = await self._one(sql.select(_responses).where(where))
        if row is None:
            return None
        return StoredResponse(
            json.loads(row.body), json.loads(row.input), json.loads(row.history),
            json.loads(row.events), row.running,
        )  # fmt: skip

    async def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response of this owner; tell whether there was one."""
        where = (_responses.c.id == response_id) & (_responses.c.owner == owner)
        async with self._engine.begin() as connection:
            return bool((await connection.execute(sql.delete(_responses).where(where))).rowcount)

    async def begin(self, owner: str, key: str, body_hash: str, run_id: str) -> Keyed | None:
        """Claim a key; where it was claimed before, return what became of that."""
        values = {
            "owner": owner, "key": key, "body_hash": body_hash, "run_id": run_id,
            "instance": self._instance, "created": time.time(), "running": True, "reply": None,
        }  # fmt: skip
        insert = INSERTS[self._engine.dialect.name](_requests).values(values)
        async with self._engine.begin() as connection:
            if (await connection.execute(insert.on_conflict_do_nothing())).rowcount:
                return None
        where = (_requests.c.owner == owner) & (_requests.c.key == key)
        row = await self._one(sql.select(_requests).where(where))
        if row is None:
            return None
        reply = json.loads(row.reply) if row.reply else None
        return Keyed(row.run_id, row.body_hash == body_hash, row.running, reply)

    async def take_up(self, owner: str, key: str) -> None:
        """Claim a key anew whose earlier request ended without a reply."""
        await self._settle(owner, key, {"running": True, "instance": self._instance})

    async def end(self, owner: str, key: str, reply: Json | None) -> None:
        """Keep the reply under its key; None where there is none to give again."""
        kept = json.dumps(reply) if reply is not None else None
        await self._settle(owner, key, {"running": False, "reply": kept})

    async def record(self, run_id: str, canonical: str, outcome: Outcome) -> None:
        """Keep the outcome of a call."""
        fault = outcome.fault
        told = {
            "value": outcome.value, "effect": outcome.effect, "attempts": outcome.attempts,
            "arguments": outcome.arguments, "degraded": outcome.degraded,
            "fallback": outcome.fallback, "seconds": outcome.seconds,
            "fault": [fault.kind, fault.message] if fault else None,
        }  # fmt: skip
        values = {"created": time.time(), "tool": outcome.tool, "canonical": canonical,
                  "outcome": json.dumps(told)}  # fmt: skip
        await self._upsert(_outcomes, {"run_id": run_id, "call_id": outcome.call_id}, values)

    async def outcomes(self, run_id: str) -> dict[tuple[str, str], Outcome]:
        """Return what was done in a run, by tool and canonical arguments."""
        where = sql.select(_outcomes).where(_outcomes.c.run_id == run_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(where.order_by(_outcomes.c.created))).all()
        return {(row.tool, row.canonical): _outcome(row) for row in rows}

    async def ask_approval(self, owner: str, request_id: str, seal: str) -> None:
        """Keep that a call waits for approval; `seal` tells whether it is still the same call."""
        values = {"seal": seal, "created": time.time()}
        await self._upsert(_approvals, {"owner": owner, "id": request_id}, values)

    async def take_approval(
        self, owner: str, request_id: str, seal: str, run_id: str
    ) -> str | None:
        """Answer a request for approval, once; return the run that did, None for no such call."""
        asked = _approvals.c
        where = (asked.owner == owner) & (asked.id == request_id) & (asked.seal == seal)
        free = where & asked.run_id.is_(None)
        async with self._engine.begin() as connection:
            await connection.execute(sql.update(_approvals).where(free).values(run_id=run_id))
            taken = await connection.execute(sql.select(asked.run_id).where(where))
            return taken.scalar_one_or_none()

    async def _one(self, query: Any) -> Any:
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).one_or_none()

    async def _settle(self, owner: str, key: str, values: Json) -> None:
        where = (_requests.c.owner == owner) & (_requests.c.key == key)
        async with self._engine.begin() as connection:
            await connection.execute(sql.update(_requests).where(where).values(values))

    async def _upsert(self, table: sql.Table, names: Json, values: Json) -> None:
        insert = INSERTS[self._engine.dialect.name](table).values({**names, **values})
        async with self._engine.begin() as connection:
            await connection.execute(
                insert.on_conflict_do_update(index_elements=list(names), set_=values)
            )

    async def _tidy(self) -> None:
        """Forget what is old, and tell what was running when the process ended."""
        oldest = time.time() - KEPT_SECONDS
        async with self._engine.begin() as connection:
            for table in (_responses, _requests, _outcomes, _approvals):
                await connection.execute(sql.delete(table).where(table.c.created < oldest))
            mine = (_requests.c.instance == self._instance) & _requests.c.running
            await connection.execute(sql.update(_requests).where(mine).values(running=False))
            left = (_responses.c.instance == self._instance) & _responses.c.running
            for row in (await connection.execute(sql.select(_responses).where(left))).all():
                ended = json.dumps(_interrupted(json.loads(row.body)))
                mine = _responses.c.id == row.id
                await connection.execute(
                    sql.update(_responses).where(mine).values(running=False, body=ended)
                )


def _interrupted(body: Json) -> Json:
    message = "The server ended before the response did; what was done is in the output."
    error = {"code": "server_error", "message": message}
    output = [{**item, "status": "incomplete"} if item.get("status") == "in_progress" else item
              for item in body["output"]]  # fmt: skip
    return {**body, "status": "failed", "error": error, "output": output}


def _outcome(row: Any) -> Outcome:
    told = json.loads(row.outcome)
    fault = Fault(*told.pop("fault")) if told["fault"] else told.pop("fault")
    return Outcome(row.call_id, row.tool, fault=fault, **told)
