"""Leases of servers on one database: heartbeats, the work of dead servers, expired rows."""

import json
import time
from typing import Any

import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from falsework.server.storage.schema import (
    approvals,
    instances,
    outcomes,
    requests,
    responses,
    turns,
)
from falsework.server.storage.serialization import mark_interrupted

RETENTION_SECONDS = 30 * 86400.0

IDEMPOTENCY_TTL = 86400.0
"""How long a key is known by itself, and a call of a request without one."""

HEARTBEAT_SECONDS = 5.0
LEASE_SECONDS = 30.0
"""A server that wasn't seen for so long has ended, and others end what it left open."""


async def sweep(connection: AsyncConnection, instance: str, *, restarted: bool) -> None:
    """Write this server's heartbeat, mark the work of dead servers as failed, delete expired rows.

    `restarted`: what has this server's name was left by the process before it.
    """
    now = time.time()
    seen = instances.c.seen >= now - LEASE_SECONDS
    alive = sql.select(instances.c.name).where(seen)
    others = alive.where(instances.c.name != instance)
    await _end_others(connection, others if restarted else alive)
    await _forget(connection, now)
    await connection.execute(sql.delete(instances).where(~seen))


async def _end_others(connection: AsyncConnection, alive: sql.Select[Any]) -> None:
    """End what is running at servers that aren't alive."""
    left = requests.c.running & requests.c.instance.not_in(alive)
    await connection.execute(sql.update(requests).where(left).values(running=False))
    left = responses.c.running & responses.c.instance.not_in(alive)
    for row in (await connection.execute(sql.select(responses).where(left))).all():
        ended = json.dumps(mark_interrupted(json.loads(row.body)))
        query = sql.update(responses).where(responses.c.id == row.id)
        await connection.execute(query.values(running=False, body=ended))


async def _forget(connection: AsyncConnection, now: float) -> None:
    old = (requests.c.expires < now) & ~requests.c.running
    runs = sql.select(requests.c.run_id).where(old)
    alone = outcomes.c.created < now - IDEMPOTENCY_TTL
    for query in (
        sql.delete(outcomes).where(outcomes.c.run_id.in_(runs) | alone),
        sql.delete(requests).where(old),
        sql.delete(turns).where(turns.c.created < now - IDEMPOTENCY_TTL),
        sql.delete(responses).where(responses.c.created < now - RETENTION_SECONDS),
        sql.delete(approvals).where(approvals.c.created < now - RETENTION_SECONDS),
    ):
        await connection.execute(query)
