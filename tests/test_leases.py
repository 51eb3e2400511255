"""Servers on one database, in SQLite and in a real PostgreSQL alike."""

import anyio
import pytest
from asking import Json

from falsework.runtime.outcomes import Outcome
from falsework.server import leases
from falsework.server.records import Records

pytestmark = pytest.mark.anyio

BODY: Json = {"id": "resp_1", "status": "in_progress", "output": [{"status": "in_progress"}]}
DONE = Outcome("call_1", "save", "{}", value=1, effect="applied", attempts=2)


async def test_what_a_process_left_open_is_ended_by_the_next_of_its_kind_alone(url: str) -> None:
    first = await Records.opened(url, "here")
    await first.keep("one", {**BODY, "id": "resp_open"}, [], [], running=True)
    await first.begin("one", "open", "hash", "run_1")
    other = await Records.opened(url, "there")
    untouched = await other.response("one", "resp_open")
    second = await Records.opened(url, "here")
    ended = await second.response("one", "resp_open")
    key = await second.begin("one", "open", "hash", "run_2")
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
    gone = await Records.opened(url, "gone")
    await gone.keep("one", {**BODY, "id": "resp_gone"}, [], [], running=True)
    await gone.begin("one", "gone", "hash", "run_1")
    other = await Records.opened(url, "other")
    await other.tidy()
    before = await other.response("one", "resp_gone")
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.05)
    await anyio.sleep(0.1)
    await other.tidy()
    after = await other.response("one", "resp_gone")
    taken = await other.take_up("one", "gone")
    await gone.end("one", "gone", {"json": "too late"})
    key = await other.begin("one", "gone", "hash", "run_2")
    for each in (gone, other):
        await each.close()

    assert before is not None
    assert after is not None
    assert key is not None
    assert (before.running, after.running, after.body["status"]) == (True, False, "failed")
    assert (taken, key.running, key.reply) == (True, True, None)


async def test_a_server_that_lives_keeps_what_it_is_doing(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.1)
    await records.begin("one", "kept", "hash", "run_1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(records.attend)
        await anyio.sleep(0.3)
        tasks.cancel_scope.cancel()
    key = await records.begin("one", "kept", "hash", "run_2")

    assert key is not None
    assert key.running


async def test_what_is_old_is_forgotten_while_the_server_runs(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    await records.begin("one", "old", "hash", "run_old", -1)
    await records.record("run_old", "{}", DONE)
    await records.tidy()
    running = await records.begin("one", "old", "hash", "run_2")
    await records.end("one", "old", {"json": {}}, -1)
    await records.keep("one", {**BODY, "id": "resp_old"}, [], [], running=False)
    monkeypatch.setattr(leases, "KEPT_SECONDS", -1)
    await records.tidy()

    assert running is not None, "what still runs is never forgotten"
    assert await records.begin("one", "old", "hash", "run_3") is None
    assert await records.outcomes("run_old") == {}
    assert await records.response("one", "resp_old") is None
