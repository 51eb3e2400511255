"""What the parts of the store have in common: transactions, and writes that insert or update."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from falsework.server.storage.errors import typed_errors
from falsework.server.storage.schema import UPSERTS
from falsework.server.types import Json


class TableGroup:
    """Some tables of the database; its methods raise StorageUnavailable."""

    def __init__(self, engine: AsyncEngine, instance: str) -> None:
        """`instance` tells this server's unfinished work from that of others on the database."""
        self._engine = engine
        self._instance = instance

    @asynccontextmanager
    async def _read(self) -> AsyncGenerator[AsyncConnection]:
        with typed_errors("read"):
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def _write(self) -> AsyncGenerator[AsyncConnection]:
        with typed_errors("write"):
            async with self._engine.begin() as connection:
                yield connection

    async def _upsert(self, table: sql.Table, key: Json, values: Json) -> None:
        insert = UPSERTS[self._engine.dialect.name](table).values({**key, **values})
        async with self._write() as connection:
            await connection.execute(
                insert.on_conflict_do_update(index_elements=list(key), set_=values)
            )
