"""What the parts of the store have in common: a database, and writes that insert or update."""

import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from falsework.server.storage.schema import UPSERTS
from falsework.server.types import Json


class TableGroup:
    """Some tables of the database."""

    def __init__(self, engine: AsyncEngine, instance: str) -> None:
        """`instance` tells this server's unfinished work from that of others on the database."""
        self._engine = engine
        self._instance = instance

    async def _upsert(self, table: sql.Table, key: Json, values: Json) -> None:
        insert = UPSERTS[self._engine.dialect.name](table).values({**key, **values})
        async with self._engine.begin() as connection:
            await connection.execute(
                insert.on_conflict_do_update(index_elements=list(key), set_=values)
            )
