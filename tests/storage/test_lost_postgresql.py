"""PostgreSQL that goes away while the server runs, and comes back."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.chat_bodies import Json
from support.clients import CHAT, HELLO, Reply, sent
from support.databases import PostgreSQL, postgresql_server, programs
from support.scripted_app import SETTINGS, Running, calls, eventually, scaffold_of
from support.tool_app import an_upstream, house_of
from support.upstream import Behaviour, Seen, Upstream, http_tool, says

from falsework.server.generation.turn import TurnBuilder

pytestmark = pytest.mark.skipif(programs() is None, reason="PostgreSQL isn't installed")

RESPONSES = "/v1/responses"
WRITING: Json = {
    "model": "smollm2", "input": "?", "tools": [{"type": "server_tool", "name": "save"}],
}  # fmt: skip
SAVES = (calls(("save", '{"id": 1}')), "Saved.")
BACK_SECONDS = 20


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture
def database() -> Iterator[PostgreSQL]:
    with postgresql_server() as server:
        yield server


@contextmanager
def served(
    scaffold: TurnBuilder, database: PostgreSQL, *turns: str, upstream: Behaviour | None = None
) -> Iterator[tuple[Running, Upstream]]:
    with an_upstream(always=upstream or says({"saved": True})) as up:
        tools = {"tools": [http_tool(up, "save", method="POST")]}
        settings = SETTINGS.model_copy(update={"database": database.url})
        with house_of(scaffold, *turns, file=tools, settings=settings) as house:
            yield house, up


def write(house: Running) -> Reply:
    return sent(house, "POST", RESPONSES, WRITING, idempotency_key="k", timeout=30)


def test_while_it_is_away_chats_are_answered_and_no_write_is_made(
    scaffold: TurnBuilder, database: PostgreSQL
) -> None:
    with served(scaffold, database, "Stored.", "Hello.", *SAVES) as (house, up):
        stored = sent(house, "POST", RESPONSES, {"model": "smollm2", "input": "?"}).json
        stored_path = f"{RESPONSES}/{stored['id']}"
        database.stop()
        plain = sent(house, "POST", CHAT, HELLO)
        away = [write(house), sent(house, "GET", stored_path), sent(house, "GET", "/ready")]
        written_while_away = len(up.seen)
        database.start()

        assert eventually(lambda: sent(house, "GET", "/ready").status == 200, BACK_SECONDS)
        back = [write(house), sent(house, "GET", stored_path)]

    assert plain.json["choices"][0]["message"]["content"] == "Hello."
    assert {(one.status, one.error["code"]) for one in away} == {(503, "storage_unavailable")}
    assert written_while_away == 0
    assert [one.status for one in back] == [200, 200]
    assert back[1].json["output"] == stored["output"]
    assert len(up.seen) == 1


def test_a_write_during_which_it_goes_away_is_told_and_is_not_repeated(
    scaffold: TurnBuilder, database: PostgreSQL
) -> None:
    async def goes_away(seen: Seen, writer: asyncio.StreamWriter) -> None:
        database.stop()
        await says({"saved": True})(seen, writer)

    with served(scaffold, database, *SAVES, upstream=goes_away) as (house, up):
        told = write(house)
        database.start()

        assert eventually(lambda: sent(house, "GET", "/ready").status == 200, BACK_SECONDS)
        again = write(house)

    assert (told.status, again.status, len(up.seen)) == (200, 200, 1)
    assert "storage_unavailable" in told.text
    assert again.headers["idempotent-replayed"] == "true"
