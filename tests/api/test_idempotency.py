"""Requests that come again: by their key, or as the retry of an SDK."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from support.chat_bodies import USER, Json
from support.clients import CHAT, Reply, left_open, sent
from support.mcp_processes import over_http
from support.response_bodies import responding
from support.scripted_app import SETTINGS, Running, calls, eventually, scaffold_of
from support.server_process import free_port
from support.tool_app import an_upstream, house_of
from support.upstream import http_tool, says

from falsework.server.engines.scripted import ScriptedReply
from falsework.server.generation.turn import TurnBuilder

RESPONSES = "/v1/responses"
SAVE: Json = {"type": "server_tool", "name": "save"}
SAID = calls(("save", '{"id": 1}'))
ASKED: Json = {"model": "smollm2", "input": "?"}


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


def left(house: Running, body: Json, seconds: float, **headers: str) -> None:
    """Ask, and leave before the reply is there."""
    with suppress(TimeoutError):
        sent(house, "POST", RESPONSES, body, timeout=seconds, **headers)


def test_of_many_that_wait_for_a_key_one_does_the_request(scaffold: TurnBuilder) -> None:
    body = {**ASKED, "tools": [SAVE]}
    with an_upstream(always=says("written", after=0.3)) as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        lines = [ScriptedReply(["Hel"], "hang"), SAID, SAID, SAID, "Saved."]
        with house_of(scaffold, *lines, file=file) as house:
            first = threading.Thread(
                target=left, args=(house, body, 2), kwargs={"idempotency_key": "k"}
            )
            first.start()
            assert eventually(lambda: house.engine.open == 1)

            def ask(_: int) -> Reply:
                return sent(house, "POST", RESPONSES, body, idempotency_key="k")

            with ThreadPoolExecutor(8) as clients:
                replies = list(clients.map(ask, range(8)))
            first.join()

    assert len({reply.json["id"] for reply in replies}) == 1
    assert len(up.seen) == 1


def test_who_waits_for_a_key_and_leaves_gives_the_seat_back(scaffold: TurnBuilder) -> None:
    with responding(scaffold, ScriptedReply(["Hel"], "hang")) as house:
        first = threading.Thread(
            target=left, args=(house, ASKED, 3), kwargs={"idempotency_key": "k"}
        )
        first.start()
        assert eventually(lambda: house.engine.open == 1)
        left(house, ASKED, 0.3, idempotency_key="k")

        assert eventually(lambda: house.app.state.admission.taken == 1, 0.5)
        first.join()


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_retry_finds_what_a_server_of_the_requests_own_has_done(
    scaffold: TurnBuilder, path: str
) -> None:
    port = free_port()
    guest = {
        "type": "mcp", "server_label": "guest", "server_url": f"http://127.0.0.1:{port}/mcp",
        "allowed_tools": ["add"], "require_approval": "never",
    }  # fmt: skip
    file = {"request_servers": {"allow_hosts": ["127.0.0.1"], "deny_private": False}}
    said = calls(("guest__add", '{"a": 2, "b": 3}'))
    body = {**ASKED, "messages": [USER], "tools": [guest]}
    turns = [said, ScriptedReply([], "error"), said, "Five."]
    with over_http(port), house_of(scaffold, *turns, file=file) as house:
        failed = sent(house, "POST", path, body, idempotency_key="k")
        again = sent(house, "POST", path, body, idempotency_key="k")

    assert (failed.status, again.status) == (500, 200)
    assert "made before" in again.text


def test_a_stream_in_the_background_is_streamed_again(scaffold: TurnBuilder) -> None:
    body = {**ASKED, "background": True, "stream": True}
    with responding(scaffold, "Hello!") as house:
        first = sent(house, "POST", RESPONSES, body, idempotency_key="k")
        again = sent(house, "POST", RESPONSES, body, idempotency_key="k")

    assert again.headers["content-type"].startswith("text/event-stream")
    assert (again.text, again.headers["idempotent-replayed"]) == (first.text, "true")


def test_a_retry_is_known_to_the_next_process_too(scaffold: TurnBuilder, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"database": f"sqlite:///{tmp_path}/kept.db"})
    with house_of(scaffold, "Hello!", file={}, settings=settings) as house:
        first = sent(house, "POST", RESPONSES, ASKED, x_stainless_retry_count="0").json
    with house_of(scaffold, "x", file={}, settings=settings) as house:
        again = sent(house, "POST", RESPONSES, ASKED, x_stainless_retry_count="1").json

    assert again == first


def test_a_response_that_was_deleted_is_neither_given_nor_made_again(scaffold: TurnBuilder) -> None:
    with responding(scaffold, "TOPSECRET") as house:
        first = sent(house, "POST", RESPONSES, ASKED, idempotency_key="k").json
        sent(house, "DELETE", f"{RESPONSES}/{first['id']}")
        again = sent(house, "POST", RESPONSES, ASKED, idempotency_key="k")
        asked = len(house.engine.asked)

    assert (again.status, asked) == (404, 1)


def test_a_key_is_the_same_however_its_header_is_spelled(scaffold: TurnBuilder) -> None:
    settings = SETTINGS.model_copy(update={"api_key": ("one",)})
    with house_of(scaffold, "Hello!", file={}, settings=settings) as house:
        made = sent(house, "POST", RESPONSES, ASKED, authorization="Bearer one").json
        found = [
            sent(house, "GET", f"{RESPONSES}/{made['id']}", authorization=spelled).status
            for spelled in ("Bearer one", "bearer one", "Bearer  one")
        ]

    assert found == [200, 200, 200]


def test_a_new_write_whose_first_attempt_was_refused_is_no_retry_of_an_equal_one(
    scaffold: TurnBuilder,
) -> None:
    settings = SETTINGS.model_copy(update={"max_concurrent_requests": 1})
    body = {"model": "smollm2", "input": "?", "tools": [{"type": "server_tool", "name": "save"}]}
    turns = [calls(("save", "{}")), "Saved.", ScriptedReply(["x"], "hang")]
    turns += [calls(("save", "{}")), "Saved again."]
    with an_upstream() as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        with house_of(scaffold, *turns, file=file, settings=settings) as house:
            first = sent(house, "POST", RESPONSES, body, x_stainless_retry_count="0")
            lost = sent(house, "POST", RESPONSES, body, x_stainless_retry_count="1")
            with left_open(house, stream=True):
                assert eventually(lambda: house.engine.open == 1)
                refused = sent(house, "POST", RESPONSES, body, x_stainless_retry_count="0")
            assert eventually(lambda: house.app.state.admission.taken == 0)
            second = sent(house, "POST", RESPONSES, body, x_stainless_retry_count="1")

    assert lost.json == first.json
    assert refused.status == 429
    assert second.json["output"][-1]["content"][0]["text"] == "Saved again."
    assert len(up.seen) == 2
