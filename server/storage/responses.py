"""Responses as they are stored: body, input, history and events."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cachetools
import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from falsework.server.storage.errors import StorageUnavailable
from falsework.server.storage.replies import TOMBSTONE
from falsework.server.storage.schema import outcomes, requests, responses
from falsework.server.storage.table_group import TableGroup
from falsework.server.types import Json

MAX_PENDING = 1000


@dataclass(frozen=True)
class StoredResponse:
    """A response as it is stored; `history` are the conversation's items before its output."""

    body: Json
    input: list[Json]
    history: list[Json]
    events: list[Json]
    running: bool


class ResponseTable(TableGroup):
    """The responses of all owners.

    The end of one that can't be stored is kept in memory until `flush` can store it.
    """

    def __init__(self, engine: AsyncEngine, instance: str) -> None:
        super().__init__(engine, instance)
        self._pending: cachetools.LRUCache[tuple[str, str], tuple[Json, list[Json]]]
        self._pending = cachetools.LRUCache(MAX_PENDING)

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
        try:
            await self._update(owner, body, events, running=running)
        except StorageUnavailable:
            if not running:
                self._pending[owner, body["id"]] = body, list(events)
            raise
        self._pending.pop((owner, body["id"]), None)

    async def flush(self) -> None:
        """Store what couldn't be stored before."""
        for (owner, _), (body, events) in list(self._pending.items()):
            await self.update(owner, body, events, running=False)

    async def _update(
        self, owner: str, body: Json, events: Sequence[Json], *, running: bool
    ) -> None:
        values = {"running": running, "body": json.dumps(body), "events": json.dumps(list(events))}
        query = sql.update(responses).where(_of(owner, body["id"])).values(values)
        async with self._write() as connection:
            await connection.execute(query)

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response of this owner."""
        if "\0" in response_id:  # which PostgreSQL takes for no text at all
            return None
        query = sql.select(responses).where(_of(owner, response_id))
        async with self._read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        items, history = json.loads(row.input), json.loads(row.history)
        if pending := self._pending.get((owner, response_id)):
            return StoredResponse(pending[0], items, history, pending[1], running=False)
        return StoredResponse(
            json.loads(row.body),
            items,
            history,
            json.loads(row.events),
            row.running,
        )

    async def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response of this owner, and its copies; tell whether there was one."""
        if not await self.get(owner, response_id):
            return False
        copies = (requests.c.response_id == response_id) & (requests.c.owner == owner)
        emptied = sql.update(requests).where(copies).values(reply=TOMBSTONE.dump())
        async with self._write() as connection:
            deleted = await connection.execute(sql.delete(responses).where(_of(owner, response_id)))
            if not deleted.rowcount:
                return False
            calls = outcomes.c.response_id == response_id
            await connection.execute(sql.delete(outcomes).where(calls))
            await connection.execute(emptied)
        self._pending.pop((owner, response_id), None)
        return True


def _of(owner: str, response_id: str) -> sql.ColumnElement[bool]:
    return (responses.c.id == response_id) & (responses.c.owner == owner)
