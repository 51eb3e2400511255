"""A server that is ended while a tool writes: the write is told of, and is never made twice."""

import threading
from pathlib import Path

import pytest
from support.chat_bodies import Json
from support.clients import CHAT, HELLO, Reply, sent
from support.scripted_app import SETTINGS, Running, calls, eventually, scaffold_of
from support.tool_app import an_upstream, house_of
from support.upstream import http_tool, says

from falsework.server.generation.turn import TurnBuilder
from falsework.server.settings import Settings

SAVE: Json = {"type": "server_tool", "name": "save"}
SAVES = (calls(("save", '{"id": 1}')), "Saved.")
BODIES: dict[str, Json] = {
    "/v1/responses": {"model": "smollm2", "input": "?", "tools": [SAVE]},
    CHAT: {**HELLO, "tools": [SAVE]},
}


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


def kept(folder: Path, drain_seconds: float) -> Settings:
    database = f"sqlite:///{folder}/kept.db"
    return SETTINGS.model_copy(update={"database": database, "drain_seconds": drain_seconds})


class Client:
    """Sends a request in a thread of its own."""

    def __init__(self, house: Running, path: str) -> None:
        self._thread = threading.Thread(target=self._send, args=(house, path))
        self._thread.start()

    def _send(self, house: Running, path: str) -> None:
        self._reply = sent(house, "POST", path, BODIES[path], idempotency_key="k")

    def reply(self) -> Reply:
        self._thread.join()
        return self._reply


@pytest.mark.parametrize("drain_seconds", [10, 0.2])
@pytest.mark.parametrize("path", BODIES)
def test_a_write_under_way_is_answered_and_recorded_even_beyond_the_time_to_drain(
    scaffold: TurnBuilder, tmp_path: Path, path: str, drain_seconds: float
) -> None:
    settings = kept(tmp_path, drain_seconds)
    with an_upstream(always=says({"saved": True}, after=1)) as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        with house_of(scaffold, *SAVES, file=file, settings=settings) as house:
            client = Client(house, path)
            assert eventually(lambda: up.seen)
            house.stop()
            told = client.reply()
        with house_of(scaffold, *SAVES, file=file, settings=settings) as house:
            again = sent(house, "POST", path, BODIES[path], idempotency_key="k")

    assert (told.status, again.status, len(up.seen)) == (200, 200, 1)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json == told.json
