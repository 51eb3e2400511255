"""What outlives a request, in SQLite or PostgreSQL; each group of tables has its own part."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import anyio
import sqlalchemy as sql
import structlog
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from falsework.server.observability import telemetry
from falsework.server.settings import ConfigError
from falsework.server.storage import leases
from falsework.server.storage.approvals import ApprovalTable
from falsework.server.storage.calls import CallTable
from falsework.server.storage.errors import StorageUnavailable, reason_of, typed_errors
from falsework.server.storage.idempotency import IdempotencyTable
from falsework.server.storage.leases import sweep
from falsework.server.storage.responses import ResponseTable
from falsework.server.storage.schema import DRIVERS, UPSERTS, instances, migrate
from falsework.server.types import Json

SINGLE_CONNECTION: Json = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
"""A database in memory is one connection: what one rolls back mustn't be another's."""

POOLS: Mapping[str, Json] = {
    "postgresql": {"pool_pre_ping": True, "pool_timeout": 5, "connect_args": {"timeout": 5}},
    "sqlite": {"pool_timeout": 5},
}
"""A request waits so many seconds for a connection, and PostgreSQL's are tried before their use."""

PRAGMAS: Mapping[str, str | int] = {
    "busy_timeout": 2000,
    "journal_mode": "WAL",
    "synchronous": "FULL",
}
"""SQLite's settings: 2 s for a lock, then the request is refused; readers go on beside a writer;
what is committed survives a loss of power, since a write is made only once it is on record."""

log = structlog.get_logger("falsework")


class Store:
    """The database; made by `connect`."""

    def __init__(self, engine: AsyncEngine, instance: str) -> None:
        """`instance` tells this server's unfinished work from that of others on the database."""
        self._engine = engine
        self._instance = instance
        self.responses = ResponseTable(engine, instance)
        self.idempotency = IdempotencyTable(engine, instance)
        self.calls = CallTable(engine, instance)
        self.approvals = ApprovalTable(engine, instance)

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
            **(SINGLE_CONNECTION if in_memory else POOLS[address.drivername]),
        )
        store = cls(engine, instance)
        try:
            if address.drivername == "sqlite":
                if address.database:
                    Path(address.database).parent.mkdir(parents=True, exist_ok=True)
                event.listen(engine.sync_engine, "connect", _set_pragmas)
                await _check_integrity(engine)
            async with engine.begin() as connection:
                await connection.run_sync(migrate)
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            _, sentence = reason_of(error)
            message = f"database: {address.render_as_string()} can't be used: {sentence}"
            raise ConfigError(message) from error
        await store.sweep(restarted=True)
        return store

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def check(self) -> None:
        """Return when the database can be written; raise StorageUnavailable otherwise."""
        with typed_errors("check"):
            async with self._engine.begin() as connection:
                await connection.execute(self._heartbeat())

    async def heartbeat_loop(self) -> None:
        """Write this server's heartbeat and sweep up after dead servers, for ever."""
        while True:
            await anyio.sleep(leases.HEARTBEAT_SECONDS)
            try:
                await self.sweep()
                await self.idempotency.flush()
                await self.responses.flush()
            except StorageUnavailable as error:
                log.warning(telemetry.LOG_SWEEP_FAILED, reason=error.message)
            except Exception:
                # The outermost handler of a task that nobody waits for.
                log.exception(telemetry.LOG_SWEEP_FAILED)

    async def sweep(self, *, restarted: bool = False) -> None:
        """Write the heartbeat, mark the work of dead servers as failed, delete expired rows.

        `restarted`: what has this server's name was left by the process before it.
        """
        with typed_errors("sweep"):
            async with self._engine.begin() as connection:
                await connection.execute(self._heartbeat())
                await sweep(connection, self._instance, restarted=restarted)

    def _heartbeat(self) -> Any:
        now = time.time()
        beat = UPSERTS[self._engine.dialect.name](instances).values(name=self._instance, seen=now)
        return beat.on_conflict_do_update(index_elements=["name"], set_={"seen": now})


def _set_pragmas(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for name, value in PRAGMAS.items():
        cursor.execute(f"PRAGMA {name}={value}")
    cursor.close()


async def _check_integrity(engine: AsyncEngine) -> None:
    """Raise ConfigError for a file of SQLite's that is damaged."""
    async with engine.connect() as connection:
        first = (await connection.execute(sql.text("PRAGMA quick_check(1)"))).scalar_one()
    if first != "ok":
        await engine.dispose()
        message = f"database: its file is damaged ({first}): restore a copy, or move it away"
        raise ConfigError(message)
