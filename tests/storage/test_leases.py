"""Servers on one database, in SQLite and in a real PostgreSQL alike."""

import anyio
import pytest
from support.chat_bodies import Json

from falsework.server.storage import leases
from falsework.server.storage.replies import StoredReply
from falsework.server.storage.store import Store
from falsework.server.tools.results import ToolResult

pytestmark = pytest.mark.anyio

BODY: Json = {"id": "resp_1", "status": "in_progress", "output": [{"status": "in_progress"}]}
DONE = ToolResult("call_1", "save", "{}", "{}", value=1, effect="applied", attempts=2)


async def test_what_a_process_left_open_is_ended_by_the_next_of_its_kind_alone(url: str) -> None:
    first = await Store.connect(url, "here")
    await first.responses.create("one", {**BODY, "id": "resp_open"}, [], [], running=True)
    await first.idempotency.claim("one", "open", "hash", "run_1")
    other = await Store.connect(url, "there")
    untouched = await other.responses.get("one", "resp_open")
    second = await Store.connect(url, "here")
    ended = await second.responses.get("one", "resp_open")
    key = await second.idempotency.claim("one", "open", "hash", "run_2")
    for each in (first, other, second):
        await each.close()

    assert untouched is not None
    assert ended is not None
    assert key is not None
    assert (untouched.body["status"], untouched.running) == ("in_progress", True)
    assert (ended.body["status"], ended.running) == ("failed", False)
    assert ended.body["output"] == [{"status": "incomplete"}]
    assert (key.running, key.run_id) == (False, "run_1")


async def test_what_a_server_left_that_is_no_longer_seen_is_ended_by_another(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = await Store.connect(url, "gone")
    await gone.responses.create("one", {**BODY, "id": "resp_gone"}, [], [], running=True)
    await gone.idempotency.claim("one", "gone", "hash", "run_1")
    other = await Store.connect(url, "other")
    await other.sweep()
    before = await other.responses.get("one", "resp_gone")
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.05)
    await anyio.sleep(0.1)
    await other.sweep()
    after = await other.responses.get("one", "resp_gone")
    taken = await other.idempotency.reclaim("one", "gone")
    await gone.idempotency.complete("one", "gone", StoredReply(body={"a": "too late"}))
    key = await other.idempotency.claim("one", "gone", "hash", "run_2")
    for each in (gone, other):
        await each.close()

    assert before is not None
    assert after is not None
    assert key is not None
    assert (before.running, after.running, after.body["status"]) == (True, False, "failed")
    assert (taken, key.running, key.reply) == (True, True, None)


async def test_a_server_that_lives_keeps_what_it_is_doing(
    records: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.1)
    await records.idempotency.claim("one", "kept", "hash", "run_1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(records.heartbeat_loop)
        await anyio.sleep(0.3)
        tasks.cancel_scope.cancel()
    key = await records.idempotency.claim("one", "kept", "hash", "run_2")

    assert key is not None
    assert key.running


async def test_what_is_old_is_forgotten_while_the_server_runs(
    records: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await records.idempotency.claim("one", "old", "hash", "run_old", -1)
    await records.calls.save("run_old", DONE)
    await records.sweep()
    running = await records.idempotency.claim("one", "old", "hash", "run_2")
    await records.idempotency.complete("one", "old", StoredReply(body={}), -1)
    await records.responses.create("one", {**BODY, "id": "resp_old"}, [], [], running=False)
    monkeypatch.setattr(leases, "RETENTION_SECONDS", -1)
    await records.sweep()

    assert running is not None, "what still runs is never forgotten"
    assert await records.idempotency.claim("one", "old", "hash", "run_3") is None
    assert await records.calls.load("run_old") == {}
    assert await records.responses.get("one", "resp_old") is None
