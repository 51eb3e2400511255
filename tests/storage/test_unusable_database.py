"""A database that can't be used: no write without its record, no 5xx after a write, no lost key."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.chat_bodies import Json
from support.clients import CHAT, HELLO, sent
from support.scripted_app import SETTINGS, Running, calls, eventually, scaffold_of
from support.tool_app import an_upstream, house_of, metrics_of
from support.upstream import Behaviour, http_tool, says

from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.turn import TurnBuilder
from falsework.server.settings import ConfigError, Settings
from falsework.server.storage.store import Store

RESPONSES = "/v1/responses"
SAVE: Json = {"type": "server_tool", "name": "save"}
WRITING: Json = {"model": "smollm2", "input": "?", "tools": [SAVE]}
SAVES = (calls(("save", '{"id": 1}')), "Saved.")


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept.db"


@pytest.fixture
def kept(file: Path) -> Settings:
    return SETTINGS.model_copy(update={"database": f"sqlite:///{file}"})


@pytest.fixture
def noise(file: Path) -> Path:
    file.write_bytes(b"noise" * 20_000)
    return file


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the database's lock, as another process would."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def writing(
    scaffold: TurnBuilder, kept: Settings, *script: Behaviour, turns: tuple[str, ...] = SAVES
) -> Iterator[tuple[Running, list[object]]]:
    with an_upstream(*script, always=says({"saved": True})) as up:
        tools = {"tools": [http_tool(up, "save", method="POST")]}
        with house_of(scaffold, *turns, file=tools, settings=kept) as house:
            yield house, up.seen


def test_with_a_locked_database_a_plain_chat_is_answered_as_ever(
    scaffold: TurnBuilder, kept: Settings, file: Path
) -> None:
    with writing(scaffold, kept, turns=("Hello.",)) as (house, _), locked(file):
        reply = sent(house, "POST", CHAT, HELLO)

    assert reply.json["choices"][0]["message"]["content"] == "Hello."


@pytest.mark.parametrize(
    ("path", "body"), [(RESPONSES, WRITING), (CHAT, {**HELLO, "tools": [SAVE]})]
)
def test_with_a_locked_database_a_write_is_refused_before_it_is_made(
    scaffold: TurnBuilder, kept: Settings, file: Path, path: str, body: Json
) -> None:
    with writing(scaffold, kept) as (house, seen):
        with locked(file):
            refused = sent(house, "POST", path, body, idempotency_key="k")
        after = sent(house, "POST", path, body, idempotency_key="k")

        assert (refused.status, refused.error["code"]) == (503, "storage_unavailable")
        assert "lock" in refused.error["message"]
        assert refused.headers["retry-after"] == "1"
        assert (after.status, len(seen)) == (200, 1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_write_whose_end_cannot_be_recorded_is_told_and_its_key_answers_at_once(
    scaffold: TurnBuilder, kept: Settings, file: Path, stream: bool
) -> None:
    body = {**WRITING, "stream": stream}
    with writing(scaffold, kept) as (house, seen):
        with closing(sqlite3.connect(file)) as other:
            for table in ("falsework_responses", "falsework_requests"):
                other.execute(
                    f"CREATE TRIGGER {table}_broken BEFORE UPDATE ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'broken'); END"
                )
            other.commit()
            told = sent(house, "POST", RESPONSES, body, idempotency_key="k")
            for table in ("falsework_responses", "falsework_requests"):
                other.execute(f"DROP TRIGGER {table}_broken")
            other.commit()
        began = time.monotonic()
        again = sent(house, "POST", RESPONSES, body, idempotency_key="k")

        assert (told.status, again.status, len(seen)) == (200, 200, 1)
        assert "storage_unavailable" in told.text
        assert again.headers["idempotent-replayed"] == "true"
        assert time.monotonic() - began < 5
        failed = {name for name in metrics_of(house) if "storage_errors_total" in name}
        assert any('operation="write"' in name for name in failed)


def test_a_server_is_not_ready_while_its_database_cannot_be_written(
    scaffold: TurnBuilder, kept: Settings, file: Path
) -> None:
    with writing(scaffold, kept) as (house, _):
        with locked(file):
            during = sent(house, "GET", "/ready")

        assert (during.status, during.error["code"]) == (503, "storage_unavailable")
        assert eventually(lambda: sent(house, "GET", "/ready").status == 200)


def test_a_database_that_is_overwritten_with_noise_costs_no_plain_chat_and_makes_no_write(
    scaffold: TurnBuilder, kept: Settings, file: Path
) -> None:
    turns = (ScriptedReply(["Hello."]),)
    with writing(scaffold, kept, turns=turns) as (house, seen):  # type: ignore[arg-type]
        for path in file.parent.glob("kept.db*"):
            path.write_bytes(b"noise" * 20_000)
        plain = sent(house, "POST", CHAT, HELLO)
        refused = sent(house, "POST", RESPONSES, WRITING)

        assert (plain.status, refused.status) == (200, 503)
        assert "restore a copy" in refused.error["message"]
        assert seen == []


@pytest.mark.anyio
async def test_a_damaged_database_is_told_at_the_start_in_one_sentence(noise: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^database: .* can't be used: its file is no database: restore a copy"
    ):
        await Store.connect(f"sqlite:///{noise}", "here")


@pytest.mark.anyio
async def test_sqlite_is_set_to_lose_nothing_and_to_wait_shortly(file: Path) -> None:
    store = await Store.connect(f"sqlite:///{file}", "here")
    async with store._engine.connect() as connection:
        said = [
            (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    await store.close()

    assert said == ["wal", 2, 2000]
