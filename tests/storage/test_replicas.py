"""Two servers on one PostgreSQL, one of them killed: nothing is lost, no write made twice."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.chat_bodies import Json
from support.scripted_app import SETTINGS, calls, eventually, scaffold_of
from support.server_process import free_port
from support.tool_app import an_upstream, house_of
from support.upstream import Upstream, http_tool, says

from falsework.server.generation.turn import TurnBuilder
from falsework.server.storage import leases

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "support" / "scripted_process.py"
SAVE = calls(("save", '{"id": 1}'))
BODY: Json = {"model": "smollm2", "input": "?", "tools": [{"type": "server_tool", "name": "save"}]}
LEASE_SECONDS = 4.0
"""After which a server that isn't seen counts as ended; otherwise half a minute."""


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture(autouse=True)
def _short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", LEASE_SECONDS)
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", LEASE_SECONDS / 8)


@dataclass(frozen=True)
class Server:
    """A server, and how it is killed where it is a process of its own."""

    port: int
    kill: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/responses"

    def post(self, key: str = "", **fields: Any) -> httpx2.Response:
        headers = {"idempotency-key": key} if key else {}
        return httpx2.post(self.url, json={**BODY, **fields}, headers=headers, timeout=60)

    def get(self, response_id: str) -> Json:
        found: Json = httpx2.get(f"{self.url}/{response_id}", timeout=60).json()
        return found


@contextmanager
def staying(scaffold: TurnBuilder, database: str, up: Upstream, *turns: str) -> Iterator[Server]:
    """Run a server in this process, by a port of its own, which is part of its name."""
    settings = SETTINGS.model_copy(update={"database": database, "port": free_port()})
    file = {"tools": [http_tool(up, "save", method="POST")]}
    with house_of(scaffold, *turns, file=file, settings=settings) as house:
        yield Server(house.port)


@contextmanager
def killed(model: Path, database: str, up: Upstream, *turns: str) -> Iterator[Server]:
    """Run a server in a process that can be killed, as a machine's failure does."""
    port = free_port()
    tools = json.dumps({"tools": [http_tool(up, "save", method="POST")]})
    command = [sys.executable, SCRIPT, str(port), database, model, tools, *turns]
    environment = os.environ | {"LEASE_SECONDS": str(LEASE_SECONDS)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Server(port, process.kill)
    finally:
        process.kill()
        process.communicate()


class Client:
    """Sends a request in a thread of its own, and keeps what came of it."""

    def __init__(self, to: Server, key: str, **fields: Any) -> None:
        self.failed = ""
        self.text = ""
        self._thread = threading.Thread(target=self._send, args=(to, key, fields))
        self._thread.start()

    def _send(self, to: Server, key: str, fields: Json) -> None:
        headers = {"idempotency-key": key}
        body = {**BODY, **fields}
        try:
            with httpx2.stream("POST", to.url, json=body, headers=headers, timeout=60) as reply:
                for piece in reply.iter_text():
                    self.text += piece
        except httpx2.TransportError as error:
            self.failed = str(error) or type(error).__name__

    def wait(self) -> None:
        self._thread.join()


def said(of: Json) -> str:
    text: str = of["output"][-1]["content"][0]["text"]
    return text


def test_either_server_continues_what_the_other_made(
    scaffold: TurnBuilder, postgresql_url: str
) -> None:
    with an_upstream() as up:
        with (
            staying(scaffold, postgresql_url, up, "First.") as one,
            staying(scaffold, postgresql_url, up, "Second.") as two,
        ):
            made = one.post().json()
            there = two.get(made["id"])
            following = two.post(previous_response_id=made["id"], input="and?").json()
            here = one.get(following["id"])

    assert there == made
    assert (said(following), here) == ("Second.", following)


def test_a_request_that_comes_again_to_the_other_server_gets_the_first_reply(
    scaffold: TurnBuilder, postgresql_url: str
) -> None:
    with an_upstream() as up:
        with (
            staying(scaffold, postgresql_url, up, SAVE, "First.") as one,
            staying(scaffold, postgresql_url, up, SAVE, "Second.") as two,
        ):
            first, again = one.post("same"), two.post("same")

    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert len(up.seen) == 1


def test_a_request_sent_to_both_at_once_is_done_once(
    scaffold: TurnBuilder, postgresql_url: str
) -> None:
    with an_upstream(always=says({"saved": True}, after=1)) as up:
        with (
            staying(scaffold, postgresql_url, up, SAVE, "Saved.") as one,
            staying(scaffold, postgresql_url, up, SAVE, "Saved.") as two,
        ):
            client = Client(one, "both")
            assert eventually(lambda: up.seen, 20)
            second = two.post("both")
            client.wait()

    assert second.status_code == 200
    assert json.loads(client.text) == second.json()
    assert len(up.seen) == 1


def test_a_stream_whose_server_is_killed_breaks_and_its_request_is_answered_by_the_other(
    smollm2: Path, scaffold: TurnBuilder, postgresql_url: str
) -> None:
    with an_upstream() as up:
        with (
            killed(smollm2, postgresql_url, up, SAVE, "HANG") as one,
            staying(scaffold, postgresql_url, up, SAVE, "Saved.") as two,
        ):
            client = Client(one, "stream", stream=True)
            assert eventually(lambda: '"status":"completed"' in _compact(client.text), 20)
            one.kill()
            client.wait()
            again = answered(two, "stream", stream=True)

    assert client.failed, "a stream that ends early is no reply"
    assert "response.completed" in again.text
    assert "Saved." in again.text
    assert len(up.seen) == 1


def test_a_write_whose_server_is_killed_is_never_made_again_unasked(
    smollm2: Path, scaffold: TurnBuilder, postgresql_url: str
) -> None:
    with an_upstream(always=says({"saved": True}, after=3)) as up:
        with (
            killed(smollm2, postgresql_url, up, SAVE, "HANG") as one,
            staying(scaffold, postgresql_url, up, SAVE, "Saved.") as two,
        ):
            client = Client(one, "write")
            assert eventually(lambda: up.seen, 20)
            one.kill()
            client.wait()
            again = answered(two, "write")

    assert client.failed
    assert again.status_code == 200
    keys = {seen.headers.get("idempotency-key") for seen in up.seen}
    assert len(up.seen) == 1 or len(keys - {None}) == 1, "the upstream can tell that it is the same"


def test_a_background_response_whose_server_is_killed_is_told_as_failed_with_what_was_done(
    smollm2: Path, scaffold: TurnBuilder, postgresql_url: str
) -> None:
    with an_upstream() as up:
        with (
            killed(smollm2, postgresql_url, up, SAVE, "HANG") as one,
            staying(scaffold, postgresql_url, up, "x") as two,
        ):
            begun = one.post(background=True).json()
            assert eventually(lambda: '"completed"' in json.dumps(two.get(begun["id"])), 20)
            one.kill()
            assert eventually(lambda: two.get(begun["id"])["status"] != "in_progress", 60)
            found = two.get(begun["id"])

    outputs = [item["output"] for item in found["output"] if item["type"] == "mcp_call"]
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
    assert outputs == ['{"ok":1}']


def answered(by: Server, key: str, **fields: Any) -> httpx2.Response:
    """Return the reply to the request that comes again, once the other server counts as ended."""
    replies: list[httpx2.Response] = []

    def is_answered() -> bool:
        with suppress(httpx2.TransportError):
            replies.append(by.post(key, **fields))
        return bool(replies) and replies[-1].status_code == 200

    assert eventually(is_answered, 60), [reply.text for reply in replies]
    return replies[-1]


def _compact(text: str) -> str:
    return text.replace(" ", "")
