"""What outlives a request, in SQLite or PostgreSQL; each group of tables has its own part."""

from pathlib import Path
from typing import Self

import anyio
import sqlalchemy as sql
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from falsework.server.observability import telemetry
from falsework.server.settings import ConfigError
from falsework.server.storage import leases
from falsework.server.storage.approvals import ApprovalTable
from falsework.server.storage.calls import CallTable
from falsework.server.storage.idempotency import IdempotencyTable
from falsework.server.storage.leases import sweep
from falsework.server.storage.responses import ResponseTable
from falsework.server.storage.schema import DRIVERS, UPSERTS, instances, migrate
from falsework.server.types import Json

SINGLE_CONNECTION: Json = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
"""A database in memory is one connection: what one rolls back mustn't be another's."""

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
            **(SINGLE_CONNECTION if in_memory else {}),
        )
        store = cls(engine, instance)
        try:
            if address.drivername == "sqlite" and address.database:
                Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            async with engine.begin() as connection:
                if engine.dialect.name == "sqlite":
                    await connection.execute(sql.text("PRAGMA journal_mode=WAL"))
                await connection.run_sync(migrate)
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            message = (
                f"database: {address.render_as_string()} can't be used: {type(error).__name__}"
            )
            raise ConfigError(message) from error
        await store.sweep(restarted=True)
        return store

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def heartbeat_loop(self) -> None:
        """Write this server's heartbeat and sweep up after dead servers, for ever."""
        while True:
            await anyio.sleep(leases.HEARTBEAT_SECONDS)
            try:
                await self.sweep()
            except Exception:
                # The outermost handler of a task that nobody waits for.
                log.exception(telemetry.LOG_SWEEP_FAILED)

    async def sweep(self, *, restarted: bool = False) -> None:
        """Write the heartbeat, mark the work of dead servers as failed, delete expired rows.

        `restarted`: what has this server's name was left by the process before it.
        """
        async with self._engine.begin() as connection:
            insert = UPSERTS[self._engine.dialect.name](instances)
            await sweep(connection, insert, self._instance, restarted=restarted)
