"""What Ray's proxies do to a request: they name its session, and change nothing else."""

import json
from collections.abc import Sequence

import pytest
from starlette.types import Message, Receive, Scope, Send

from falsework.server.replicas import proxy
from falsework.server.replicas.proxy import middlewares
from falsework.server.replicas.replica_app import ReplicaApp

pytestmark = pytest.mark.anyio

BODY = json.dumps({"prompt_cache_key": "trip", "messages": [{"role": "user", "content": "?"}]})
SCOPE: Scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}


class Inner:
    """An application that keeps what it was asked."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        self.headers = dict(scope.get("headers", ()))
        more = scope["type"] == "http"
        while more:
            message = await receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        del send


async def passed(pieces: Sequence[bytes], headers: Sequence[tuple[bytes, bytes]] = ()) -> Inner:
    """Return what comes through the proxy of a body in pieces."""
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    messages[-1]["more_body"] = False
    inner = Inner()
    (middleware,) = middlewares()

    async def receive() -> Message:
        return messages.pop(0)

    async def send(_: Message) -> None:
        raise AssertionError

    app = middleware.cls(inner, *middleware.args, **middleware.kwargs)
    await app({**SCOPE, "headers": [*headers]}, receive, send)
    return inner


async def test_a_body_in_pieces_arrives_whole_and_with_its_session() -> None:
    inner = await passed([BODY[:20].encode(), BODY[20:].encode()], [(b"accept", b"*/*")])
    other = await passed([BODY.encode()])

    assert inner.body == BODY.encode()
    assert inner.headers[b"accept"] == b"*/*"
    assert len(inner.headers[b"x-session-id"]) == 8
    assert inner.headers[b"x-session-id"] == other.headers[b"x-session-id"]


@pytest.mark.parametrize("name", [b"x-session-id", b"x_session_id", b"X-Session-Id"])
async def test_a_clients_own_header_is_replaced_however_it_is_spelled(name: bytes) -> None:
    inner = await passed([b"{}"], [(name, b"a client's own")])

    assert len(inner.headers.get(b"x-session-id", b"12345678")) == 8
    assert b"a client's own" not in inner.headers.values()


async def test_a_body_beyond_the_limit_is_passed_on_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MAX_READ_BYTES", 10)
    inner = await passed([BODY[:20].encode(), BODY[20:].encode()])

    assert inner.body == BODY.encode()
    assert b"x-session-id" not in inner.headers


@pytest.mark.parametrize(
    ("server", "open_to_all", "reached"),
    [
        (("127.0.0.1", 8000), False, 1),
        (("::1", 8000), False, 1),
        (("10.0.0.7", 8000), False, 0),
        (None, False, 0),
        (("10.0.0.7", 8000), True, 1),
    ],
)
async def test_replicas_without_keys_answer_their_own_machine_alone(
    server: tuple[str, int] | None, open_to_all: bool, reached: int
) -> None:
    inner, sent = Inner(), list[Message]()
    app = ReplicaApp(inner, open_to_all=open_to_all)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({**SCOPE, "server": server}, receive, send)

    assert inner.asked == reached
    assert [message["status"] for message in sent[:1]] == ([] if reached else [403])
