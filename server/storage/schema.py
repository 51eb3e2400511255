"""The tables, in SQLite or PostgreSQL; what an earlier version didn't have is added to its own."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateColumn

DRIVERS: Mapping[str, str] = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
UPSERTS: Mapping[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}

_all = sql.MetaData()

instances = sql.Table(
    "falsework_instances",
    _all,
    sql.Column("name", sql.String(128), primary_key=True),
    sql.Column("seen", sql.Float, nullable=False),
)
"""The servers on this database, and when each was last alive."""

responses = sql.Table(
    "falsework_responses",
    _all,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("owner", sql.String(64), nullable=False),
    sql.Column("instance", sql.String(128), nullable=False),
    sql.Column("created", sql.Float, nullable=False, index=True),
    sql.Column("running", sql.Boolean, nullable=False),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("input", sql.Text, nullable=False),
    sql.Column("history", sql.Text, nullable=False),
    sql.Column("events", sql.Text, nullable=False),
)
requests = sql.Table(
    "falsework_requests",
    _all,
    sql.Column("owner", sql.String(64), primary_key=True),
    sql.Column("key", sql.String(255), primary_key=True),
    sql.Column("body_hash", sql.String(64), nullable=False),
    sql.Column("run_id", sql.String(64), nullable=False),
    sql.Column("instance", sql.String(128), nullable=False),
    sql.Column("created", sql.Float, nullable=False),
    sql.Column("running", sql.Boolean, nullable=False),
    sql.Column("reply", sql.Text),
    sql.Column("response_id", sql.String(64), index=True),
    sql.Column("expires", sql.Float, index=True, server_default="0"),
)
outcomes = sql.Table(
    "falsework_outcomes",
    _all,
    sql.Column("run_id", sql.String(64), primary_key=True),
    sql.Column("call_id", sql.String(64), primary_key=True),
    sql.Column("created", sql.Float, nullable=False, index=True),
    sql.Column("tool", sql.String(64), nullable=False),
    sql.Column("outcome", sql.Text, nullable=False),
    sql.Column("response_id", sql.String(64), index=True),
)
approvals = sql.Table(
    "falsework_approvals",
    _all,
    sql.Column("owner", sql.String(64), primary_key=True),
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("seal", sql.String(64), nullable=False),
    sql.Column("created", sql.Float, nullable=False, index=True),
    sql.Column("run_id", sql.String(64)),
)
turns = sql.Table(
    "falsework_turns",
    _all,
    sql.Column("owner", sql.String(64), primary_key=True),
    sql.Column("call_id", sql.String(64), primary_key=True),
    sql.Column("created", sql.Float, nullable=False, index=True),
    sql.Column("executed", sql.Text, nullable=False),
)

sql.Index("ix_falsework_requests_body", requests.c.owner, requests.c.body_hash)
for table in (responses, requests):
    running = table.c.running
    sql.Index(
        f"ix_{table.name}_running", table.c.instance, sqlite_where=running, postgresql_where=running
    )


def migrate(connection: sql.Connection) -> None:
    """Make what isn't there yet, and drop columns that no version has any more."""
    _all.create_all(connection)
    for table in _all.sorted_tables:
        there = {column["name"] for column in sql.inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                spelled = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(sql.text(f"ALTER TABLE {table.name} ADD COLUMN {spelled}"))
        for name in there - set(table.columns.keys()):
            connection.execute(sql.text(f"ALTER TABLE {table.name} DROP COLUMN {name}"))
        for index in table.indexes:
            index.create(connection, checkfirst=True)
