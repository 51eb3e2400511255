"""Calls that wait for the client's approval; each can be answered once."""

import time

import sqlalchemy as sql

from falsework.server.storage.schema import approvals
from falsework.server.storage.table_group import TableGroup


class ApprovalTable(TableGroup):
    """The approvals of all owners."""

    async def create(self, owner: str, request_id: str, digest: str) -> None:
        """Store that a call waits; `digest` tells whether it is still the same call."""
        values = {"seal": digest, "created": time.time()}
        await self._upsert(approvals, {"owner": owner, "id": request_id}, values)

    async def consume(self, owner: str, request_id: str, digest: str, run_id: str) -> str | None:
        """Answer a request for approval, once; return the run that did, None for no such call."""
        column = approvals.c
        where = (column.owner == owner) & (column.id == request_id) & (column.seal == digest)
        free = where & column.run_id.is_(None)
        async with self._write() as connection:
            await connection.execute(sql.update(approvals).where(free).values(run_id=run_id))
            taken = await connection.execute(sql.select(column.run_id).where(where))
            run: str | None = taken.scalar_one_or_none()
        return run
