"""Clients that send slowly, or without end: they hold nothing that others need."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.clients import CHAT, HELLO, sent
from support.scripted_app import SETTINGS, Running, running, scaffold_of

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder
from falsework.server.http import body, protocol

HEAD = (
    f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    "content-length: 999\r\n\r\n"
)


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture
def house(scaffold: TurnBuilder) -> Iterator[Running]:
    settings = SETTINGS.model_copy(update={"max_concurrent_requests": 4})
    with running(ScriptedEngine(ScriptedReply(["Hello."])), scaffold, settings) as running_house:
        yield running_house


@contextmanager
def connected(house: Running, text: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as connection:
        connection.sendall(text.encode())
        yield connection


def test_bodies_that_drip_hold_no_seat(house: Running) -> None:
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(connected(house, HEAD + "{"))

        replies = [sent(house, "POST", CHAT, HELLO).status for _ in range(5)]

    assert replies == [200] * 5


@pytest.mark.parametrize("limit", ["IDLE_SECONDS", "WHOLE_SECONDS"])
def test_a_body_that_does_not_come_is_given_up(
    house: Running, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(body, limit, 0.2)

    with connected(house, HEAD + "{") as connection:
        said = connection.recv(65536).decode()

    assert said.startswith("HTTP/1.1 408")
    assert '"code":"request_timeout"' in said


@pytest.mark.parametrize("begun", ["", "POST ", f"POST {CHAT} HTTP/1.1\r\nhost: local"])
def test_a_connection_whose_head_does_not_end_is_closed(
    house: Running, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with connected(house, begun) as connection:
        began = time.monotonic()

        assert connection.recv(65536) == b""
        assert time.monotonic() - began < 5


def test_a_second_request_on_a_connection_has_its_own_time(
    house: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    first = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with connected(house, first) as connection:
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET /health HT")

        assert connection.recv(65536) == b""


def test_a_head_that_is_too_large_is_refused(house: Running) -> None:
    head = f"GET /health HTTP/1.1\r\nhost: localhost\r\nx-filler: {'x' * 200_000}"
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as connection:
        try:
            connection.sendall(head.encode())
            said = connection.recv(65536)
        except ConnectionError:
            said = b""

    assert said == b"" or said.startswith(b"HTTP/1.1 400")
    assert sent(house, "GET", "/health").status == 200
