"""Tool calls that were made: results for a retry, and what the server ran in a client's turn."""

import hashlib
import json
import time
from collections.abc import Sequence

import sqlalchemy as sql

from falsework.server.storage.schema import outcomes, turns
from falsework.server.storage.serialization import dump_result, load_result
from falsework.server.storage.table_group import TableGroup
from falsework.server.tools.results import ToolResult
from falsework.server.types import Json


class CallTable(TableGroup):
    """The calls of all requests."""

    async def save(self, run_id: str, result: ToolResult, response_id: str | None = None) -> None:
        """Store the result of a call, which is deleted with its response."""
        # Ids may be the client's, of any length; text of any kind is safe as escaped JSON alone.
        name = hashlib.sha256(result.call_id.encode()).hexdigest()
        values = {
            "created": time.time(),
            "tool": result.tool,
            "outcome": dump_result(result),
            "response_id": response_id,
        }
        await self._upsert(outcomes, {"run_id": run_id, "call_id": name}, values)

    async def load(self, run_id: str) -> dict[tuple[str, str], ToolResult]:
        """Return the results of a run, by tool and canonical arguments."""
        query = sql.select(outcomes).where(outcomes.c.run_id == run_id)
        async with self._read() as connection:
            rows = (await connection.execute(query.order_by(outcomes.c.created))).all()
        results = [load_result(row) for row in rows]
        return {result.dedup_key: result for result in results}

    async def save_executed(self, owner: str, call_id: str, executed: Sequence[Json]) -> None:
        """Store what the server ran in a turn whose first call for the client has that id."""
        values = {"created": time.time(), "executed": json.dumps(list(executed))}
        await self._upsert(turns, {"owner": owner, "call_id": call_id}, values)

    async def get_executed(self, owner: str, call_ids: Sequence[str]) -> dict[str, list[Json]]:
        """Return what the server ran in such turns, by those ids."""
        if not call_ids:
            return {}
        query = sql.select(turns).where((turns.c.owner == owner) & turns.c.call_id.in_(call_ids))
        async with self._read() as connection:
            rows = (await connection.execute(query)).all()
        return {row.call_id: json.loads(row.executed) for row in rows}
