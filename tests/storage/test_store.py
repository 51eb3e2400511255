"""What is kept in the database, in SQLite and in a real PostgreSQL alike."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sql
from support.chat_bodies import Json
from support.clients import client, sent
from support.scripted_app import SETTINGS, calls, scaffold_of
from support.tool_app import an_upstream, house_of
from support.upstream import http_tool

from falsework.server.generation.turn import TurnBuilder
from falsework.server.settings import ConfigError
from falsework.server.storage.errors import StorageUnavailable
from falsework.server.storage.replies import TOMBSTONE, StoredReply
from falsework.server.storage.store import Store
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult

pytestmark = pytest.mark.anyio

BODY: Json = {"id": "resp_1", "status": "in_progress", "output": [{"status": "in_progress"}]}
DONE = ToolResult(
    "call_1", "save", '{"id": 1}', '{"id":1}', value={"a": "ü"}, effect="applied", attempts=2
)


async def test_a_response_is_found_by_its_owner_alone(records: Store) -> None:
    await records.responses.create("one", BODY, [{"a": 1}], [{"a": 1}, {"b": 2}], running=False)

    kept = await records.responses.get("one", "resp_1")
    other = await records.responses.get("two", "resp_1")

    assert kept is not None
    assert (kept.body, kept.input, kept.history) == (BODY, [{"a": 1}], [{"a": 1}, {"b": 2}])
    assert other is None
    assert not await records.responses.delete("two", "resp_1")
    assert await records.responses.delete("one", "resp_1")


async def test_a_response_that_was_deleted_is_not_kept_again(records: Store) -> None:
    await records.responses.create("one", BODY, [], [], running=True)
    await records.responses.delete("one", "resp_1")
    await records.responses.update("one", BODY, [], running=False)

    assert await records.responses.get("one", "resp_1") is None


async def test_a_database_in_memory_loses_nothing_beside_those_who_read() -> None:
    records = await Store.connect("sqlite://", "here")
    await records.responses.create("one", BODY, [], [], running=True)

    async def read() -> None:
        for _ in range(20):
            await records.responses.get("one", "resp_1")

    async with anyio.create_task_group() as readers:
        for _ in range(3):
            readers.start_soon(read)
        await records.responses.update("one", {**BODY, "status": "completed"}, [], running=False)
    kept = await records.responses.get("one", "resp_1")
    await records.close()

    assert kept is not None
    assert kept.body["status"] == "completed"


async def test_an_approval_is_taken_by_one_run_of_many(records: Store) -> None:
    await records.approvals.create("one", "mcpr_1", "seal")
    by: list[str | None] = []

    async def take(number: int) -> None:
        by.append(await records.approvals.consume("one", "mcpr_1", "seal", f"run_{number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(take, number)

    assert len(set(by)) == 1
    assert await records.approvals.consume("one", "mcpr_1", "seal", "run_20") == by[0]
    assert await records.approvals.consume("one", "mcpr_1", "broken", "run_20") is None
    assert await records.approvals.consume("two", "mcpr_1", "seal", "run_20") is None


async def test_a_key_is_claimed_by_one_of_many(records: Store) -> None:
    won: list[bool] = []

    async def claim(number: int) -> None:
        earlier = await records.idempotency.claim("one", "claimed", "hash", f"run_{number}")
        won.append(earlier is None)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(claim, number)

    assert sum(won) == 1


async def test_what_became_of_a_key_is_told_to_who_comes_again(records: Store) -> None:
    assert await records.idempotency.claim("one", "key", "hash", "run_1") is None
    running = await records.idempotency.claim("one", "key", "hash", "run_2")
    await records.idempotency.complete("one", "key", StoredReply(body={}))
    done = await records.idempotency.claim("one", "key", "other", "run_3")

    assert running is not None
    assert done is not None
    assert (running.run_id, running.running, running.reply) == ("run_1", True, None)
    assert (done.running, done.reply, done.same_body) == (False, StoredReply(body={}), False)


async def test_the_calls_of_a_run_are_remembered(records: Store) -> None:
    error = ToolCallError("timeout", "Too late.")
    failed = ToolResult("call_2", "look", "{}", "{}", error=error, effect="none", attempts=3)
    await records.calls.save("run_1", DONE)
    await records.calls.save("run_1", failed)

    known = await records.calls.load("run_1")

    assert known == {("save", '{"id":1}'): DONE, ("look", "{}"): failed}
    assert await records.calls.load("run_2") == {}


async def test_what_a_database_complains_of_does_not_tell_what_was_asked(records: Store) -> None:
    async with records._engine.begin() as connection:
        await connection.execute(sql.text("DROP TABLE falsework_outcomes"))

    with pytest.raises(StorageUnavailable) as caught:
        await records.calls.save("run_1", DONE)

    assert "hunter2" not in str(caught.value)


async def test_a_key_that_is_free_again_is_taken_up_by_one_of_many(records: Store) -> None:
    await records.idempotency.claim("one", "freed", "hash", "run_1")
    assert not await records.idempotency.reclaim("one", "freed"), "it is still running"
    await records.idempotency.complete("one", "freed", None)
    won: list[bool] = []

    async def take() -> None:
        won.append(await records.idempotency.reclaim("one", "freed"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(take)

    assert sum(won) == 1


async def test_with_a_response_its_copies_are_deleted(records: Store) -> None:
    await records.idempotency.claim("one", "copied", "hash", "run_copied")
    await records.calls.save("run_copied", DONE, "resp_copied")
    await records.responses.create("one", {**BODY, "id": "resp_copied"}, [], [], running=False)
    await records.idempotency.complete(
        "one", "copied", StoredReply(body=BODY), response_id="resp_copied"
    )
    assert not await records.responses.delete("two", "resp_copied")
    assert await records.calls.load("run_copied")
    assert await records.responses.delete("one", "resp_copied")
    key = await records.idempotency.claim("one", "copied", "hash", "run_2")

    assert key is not None
    assert key.reply == TOMBSTONE
    assert await records.calls.load("run_copied") == {}


async def test_of_a_response_that_is_deleted_while_it_is_made_nothing_is_kept(
    records: Store,
) -> None:
    await records.idempotency.claim("one", "meanwhile", "hash", "run_1")
    await records.responses.create("one", {**BODY, "id": "resp_meanwhile"}, [], [], running=True)
    await records.responses.delete("one", "resp_meanwhile")
    await records.idempotency.complete(
        "one", "meanwhile", StoredReply(body=BODY), response_id="resp_meanwhile"
    )
    key = await records.idempotency.claim("one", "meanwhile", "hash", "run_2")

    assert key is not None
    assert key.reply == TOMBSTONE


async def test_what_the_server_ran_in_a_turn_is_found_by_the_clients_call(
    records: Store,
) -> None:
    await records.calls.save_executed("one", "call_mixed", [{"name": "look"}])

    assert await records.calls.get_executed("one", ["call_mixed", "call_x"]) == {
        "call_mixed": [{"name": "look"}]
    }
    assert await records.calls.get_executed("two", ["call_mixed"]) == {}


async def test_an_id_that_is_no_text_is_of_no_response(records: Store) -> None:
    assert await records.responses.get("one", "\0") is None
    assert not await records.responses.delete("one", "\0")


async def test_a_call_is_remembered_whatever_its_id_and_arguments(records: Store) -> None:
    odd = replace(DONE, call_id="mcpr_" + "x" * 80, arguments="\x00\ud800", canonical="\x00\ud800")
    await records.calls.save("run_odd", odd)

    assert await records.calls.load("run_odd") == {("save", "\x00\ud800"): odd}


async def test_the_latest_request_with_a_body_is_found(records: Store) -> None:
    for key in ("sdk_1", "sdk_2", "other"):
        await records.idempotency.claim("one", key, "a_hash", "run_1")

    assert await records.idempotency.latest("one", "a_hash", "sdk_") == "sdk_2"
    assert await records.idempotency.latest("two", "a_hash", "sdk_") is None


async def test_a_database_of_an_earlier_version_is_given_what_it_lacks(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as database:
        database.execute(
            "create table falsework_requests (owner, key, body_hash, run_id, instance, created, "
            "running, reply, primary key (owner, key))"
        )
    records = await Store.connect(f"sqlite:///{tmp_path}/old.db", "here")
    await records.idempotency.claim("one", "key", "hash", "run_1")
    await records.idempotency.complete("one", "key", StoredReply(body={"a": 1}))
    found = await records.idempotency.claim("one", "key", "hash", "run_2")
    await records.close()

    assert found is not None
    assert (found.run_id, found.reply) == ("run_1", StoredReply(body={"a": 1}))


@pytest.mark.parametrize(
    "bad", ["mysql://x/y", "postgresql://nobody@127.0.0.1:9/none", "sqlite:////proc/none/x.db"]
)
async def test_a_database_that_cannot_be_used_is_named_without_its_password(bad: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await Store.connect(bad, "here")

    assert str(caught.value).startswith("database: ")


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


def test_a_server_on_postgresql_keeps_responses_and_keys_over_a_restart(
    scaffold: TurnBuilder, postgresql_url: str
) -> None:
    settings = SETTINGS.model_copy(update={"database": postgresql_url})
    body = {"model": "smollm2", "input": "?", "tools": [{"type": "server_tool", "name": "save"}]}
    said = calls(("save", '{"id": 1}'))
    with an_upstream() as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        with house_of(scaffold, said, "Saved.", file=file, settings=settings) as house:
            first = sent(house, "POST", "/v1/responses", body, idempotency_key="restart").json
        with house_of(scaffold, "x", file=file, settings=settings) as house, client(house) as sdk:
            again = sent(house, "POST", "/v1/responses", body, idempotency_key="restart").json
            kept = sent(house, "GET", f"/v1/responses/{first['id']}").json
            del sdk

    assert again == kept == first
    assert len(up.seen) == 1
