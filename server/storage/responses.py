"""Responses as they are stored: body, input, history and events."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sql

from falsework.server.storage.replies import TOMBSTONE
from falsework.server.storage.schema import outcomes, requests, responses
from falsework.server.storage.table_group import TableGroup
from falsework.server.types import Json


@dataclass(frozen=True)
class StoredResponse:
    """A response as it is stored; `history` are the conversation's items before its output."""

    body: Json
    input: list[Json]
    history: list[Json]
    events: list[Json]
    running: bool


class ResponseTable(TableGroup):
    """The responses of all owners."""

    async def create(
        self,
        owner: str,
        body: Json,
        items: Sequence[Json],
        history: Sequence[Json],
        *,
        running: bool,
    ) -> None:
        """Store a response; `items` are those of its input."""
        values = {
            "owner": owner,
            "instance": self._instance,
            "created": time.time(),
            "running": running,
            "body": json.dumps(body),
            "input": json.dumps(list(items)),
            "history": json.dumps(list(history)),
            "events": "[]",
        }
        await self._upsert(responses, {"id": body["id"]}, values)

    async def update(
        self, owner: str, body: Json, events: Sequence[Json], *, running: bool
    ) -> None:
        """Store what a response has become; one that was deleted stays so."""
        values = {"running": running, "body": json.dumps(body), "events": json.dumps(list(events))}
        query = sql.update(responses).where(_of(owner, body["id"])).values(values)
        async with self._engine.begin() as connection:
            await connection.execute(query)

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response of this owner."""
        if "\0" in response_id:  # which PostgreSQL takes for no text at all
            return None
        query = sql.select(responses).where(_of(owner, response_id))
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return StoredResponse(
            json.loads(row.body),
            json.loads(row.input),
            json.loads(row.history),
            json.loads(row.events),
            row.running,
        )

    async def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response of this owner, and its copies; tell whether there was one."""
        if not await self.get(owner, response_id):
            return False
        copies = (requests.c.response_id == response_id) & (requests.c.owner == owner)
        emptied = sql.update(requests).where(copies).values(reply=TOMBSTONE.dump())
        async with self._engine.begin() as connection:
            deleted = await connection.execute(sql.delete(responses).where(_of(owner, response_id)))
            if not deleted.rowcount:
                return False
            calls = outcomes.c.response_id == response_id
            await connection.execute(sql.delete(outcomes).where(calls))
            await connection.execute(emptied)
        return True


def _of(owner: str, response_id: str) -> sql.ColumnElement[bool]:
    return (responses.c.id == response_id) & (responses.c.owner == owner)
