"""The running server when something ends too early: a client, an engine, a limit, the server."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from support.chat_bodies import USER
from support.clients import CHAT, HELLO, client, left_open, read_to_end, sent
from support.scripted_app import SETTINGS, Running, eventually, running, scaffold_of

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder
from falsework.server.http import sse


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture
def hanging(scaffold: TurnBuilder) -> Iterator[Running]:
    settings = SETTINGS.model_copy(update={"max_concurrent_requests": 1})
    with running(ScriptedEngine(ScriptedReply(["Hel"], "hang")), scaffold, settings) as house:
        yield house


@pytest.mark.parametrize("finish", ["error", "gone"])
def test_a_stream_that_fails_says_so_and_ends_with_done(scaffold: TurnBuilder, finish: Any) -> None:
    engine = ScriptedEngine(ScriptedReply(["Hel"], finish))
    with running(engine, scaffold) as house, client(house) as sdk:
        reply = sent(house, "POST", CHAT, {**HELLO, "stream": True})
        stream = sdk.chat.completions.create(model="smollm2", messages=[USER], stream=True)  # type: ignore[list-item]
        with pytest.raises(openai.APIError):
            list(stream)

    *_, failure, done, _ = reply.text.split("\n\n")
    assert done == "data: [DONE]"
    assert json.loads(failure.removeprefix("data: "))["error"]["type"] == "server_error"


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_is_gone_is_a_503(scaffold: TurnBuilder, stream: bool) -> None:
    engine = ScriptedEngine(ScriptedReply([]))
    engine.alive = False
    with running(engine, scaffold) as house:
        reply = sent(house, "POST", CHAT, {**HELLO, "stream": stream})
        ready = sent(house, "GET", "/ready")
        health = sent(house, "GET", "/health")

    assert (reply.status, reply.error["code"]) == (503, "engine_unavailable")
    assert (ready.status, health.status) == (503, 200)


def test_keep_alive_comments_are_sent_while_the_model_thinks(
    scaffold: TurnBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sse.KEEP_ALIVE_SECONDS <= 10
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.05)
    monkeypatch.setattr(sse, "FIRST_CHUNK_TIMEOUT", 0.05)
    with running(ScriptedEngine(ScriptedReply([], "hang")), scaffold) as house:
        connection = left_open(house, stream=True)
        heard = b""
        while b": keep-alive" not in heard:
            heard += connection.recv(65536)
        connection.close()

        assert eventually(lambda: house.engine.open == 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pieces", [[], ["Hel"]])
def test_a_client_that_goes_away_frees_the_engine_at_once(
    hanging: Running, pieces: list[str], stream: bool
) -> None:
    hanging.engine.lines = (ScriptedReply(pieces, "hang"),)
    connection = left_open(hanging, stream=stream)
    assert eventually(lambda: hanging.engine.open == 1)
    begun = time.monotonic()

    connection.close()

    assert eventually(lambda: hanging.engine.open == 0)
    assert time.monotonic() - begun < 1
    assert eventually(lambda: hanging.app.state.admission.taken == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_more_requests_than_allowed_are_told_to_wait(hanging: Running, stream: bool) -> None:
    with left_open(hanging, stream=stream):
        assert eventually(lambda: hanging.engine.open == 1)
        reply = sent(hanging, "POST", CHAT, HELLO)
        with client(hanging) as sdk, pytest.raises(openai.RateLimitError):
            sdk.chat.completions.create(model="smollm2", messages=[USER])  # type: ignore[list-item]

    assert (reply.status, reply.error["type"]) == (429, "rate_limit_error")
    assert reply.headers["retry-after"] == "1"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(
    scaffold: TurnBuilder, chunked: bool
) -> None:
    settings = SETTINGS.model_copy(update={"max_body_bytes": 2000})
    body: Any = b" " * 3000
    with running(ScriptedEngine(ScriptedReply(["a"])), scaffold, settings) as house:
        reply = sent(house, "POST", CHAT, iter([body]) if chunked else body)

    assert (reply.status, reply.error["code"]) == (413, "request_too_large")


def test_a_server_that_ends_lets_running_requests_finish(scaffold: TurnBuilder) -> None:
    engine = ScriptedEngine(ScriptedReply(["x"] * 4000))
    settings = SETTINGS.model_copy(update={"drain_seconds": 30})
    heard: list[str] = []
    with running(engine, scaffold, settings) as house:
        connection = left_open(house, stream=True)
        reader = threading.Thread(target=lambda: heard.append(read_to_end(connection)))
        reader.start()
        assert eventually(lambda: engine.open == 1)
        house.stop()
        house.wait()
        reader.join()

    assert '"finish_reason":"stop"' in heard[0]
    assert "data: [DONE]" in heard[0]


@pytest.mark.parametrize(("stream", "said"), [(True, "data: [DONE]"), (False, "HTTP/1.1 503")])
def test_who_is_not_done_in_time_is_told(scaffold: TurnBuilder, stream: bool, said: str) -> None:
    engine = ScriptedEngine(ScriptedReply(["x"], "hang"))
    settings = SETTINGS.model_copy(update={"drain_seconds": 0.2})
    with running(engine, scaffold, settings) as house:
        connection = left_open(house, stream=stream)
        assert eventually(lambda: engine.open == 1)
        house.stop()
        heard = read_to_end(connection)

    assert said in heard
    assert "shutting_down" in heard
    assert engine.open == 0


def test_a_request_whose_body_does_not_come_holds_no_seat(hanging: Running) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{{"
    with socket.create_connection(("127.0.0.1", hanging.port), timeout=10) as connection:
        connection.sendall(head.encode())
        time.sleep(0.2)

        assert hanging.app.state.admission.taken == 0

    assert hanging.engine.asked == []


def test_a_client_that_does_not_read_does_not_hold_the_engine_for_ever(
    scaffold: TurnBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "SEND_TIMEOUT_SECONDS", 0.2)
    endless = ScriptedEngine(ScriptedReply(["x" * 2**16] * 1000, "hang"))
    with running(endless, scaffold) as house, left_open(house, stream=True):
        assert eventually(lambda: endless.open == 1)

        assert eventually(lambda: endless.open == 0)
