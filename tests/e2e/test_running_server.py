"""The running server and clients that are no SDK: probes, hostile ones, and those who leave."""

import http.client
import json
import platform
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from support.openai_sdk import TOOLS, Sdk, body, calls_of, check, function
from support.server_process import Server, eventually

Json = dict[str, Any]


def send(
    server: Server, method: str, path: str, payload: bytes = b"", key: str | None = None
) -> tuple[int, http.client.HTTPMessage, Json]:
    """Return status, headers and JSON body of a reply."""
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
    bearer = {"authorization": f"Bearer {server.key if key is None else key}"}
    connection.request(method, path, payload, bearer | {"content-type": "application/json"})
    response = connection.getresponse()
    read = json.loads(response.read())
    connection.close()
    return response.status, response.headers, read


SHORT = json.dumps(body(max_tokens=1)).encode()


def post(server: Server, payload: bytes) -> tuple[int, http.client.HTTPMessage, Json]:
    return send(server, "POST", "/v1/chat/completions", payload)


def open_request(server: Server, *, stream: bool) -> socket.socket:
    """Send a request whose reply takes minutes; return its socket, nothing read yet."""
    where = urlsplit(server.url)
    no_end = {"2": -100}
    payload = json.dumps(body(max_tokens=3900, logit_bias=no_end, stream=stream)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\n"
        f"authorization: Bearer {server.key}\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    client = socket.create_connection((where.hostname or "", where.port or 0), timeout=60)
    client.sendall(head.encode() + payload)
    return client


def seconds_of_work(server: Server, window: float) -> float:
    """Return how many seconds the server and its engine compute within the window."""
    parent = psutil.Process(server.process.pid)
    processes = [parent, *parent.children(recursive=True)]

    def spent() -> float:
        times = [process.cpu_times() for process in processes]
        return sum(each.user + each.system for each in times)

    before = spent()
    time.sleep(window)
    return spent() - before


def is_busy(server: Server) -> bool:
    return seconds_of_work(server, window=0.3) > 0.15


def test_nothing_but_words_of_ours_stands_before_the_banner(server: Server) -> None:
    before = server.says().partition("\n  model ")[0].splitlines()

    assert [line.partition(" ")[0] for line in before if line] == [
        "Reading", "Loading", "Loading", "Ready",
    ]  # fmt: skip


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Intel's runtime is for x86-64")
def test_the_engine_computes_with_intels_openmp_alone(server: Server) -> None:
    engines = psutil.Process(server.process.pid).children(recursive=True)

    loaded = {
        Path(mapped.path).name
        for engine in engines
        if "EngineCore" in " ".join(engine.cmdline())
        for mapped in engine.memory_maps()
        if "omp" in Path(mapped.path).name
    }

    assert "libiomp5.so" in loaded


@pytest.mark.parametrize("path", ["/health", "/ready", "/version"])
def test_probes_need_no_key(server: Server, path: str) -> None:
    status, _, _ = send(server, "GET", path, key="")

    assert status == 200


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b'{"messages": []}', "missing_required_parameter"),
        (b'{"model": "smollm2", "messages": [{"role": "user", "content": NaN}]}', None),
    ],
)
def test_a_broken_body_is_refused_in_openais_words(
    server: Server, payload: bytes, code: str | None
) -> None:
    status, headers, said = post(server, payload)

    assert status == 400
    assert set(said["error"]) == {"message", "type", "param", "code"}
    assert said["error"]["type"] == "invalid_request_error"
    assert said["error"]["code"] == code
    assert headers["x-request-id"]


def test_an_unknown_path_is_refused_in_openais_words(server: Server) -> None:
    status, _, said = send(server, "POST", "/v1/embeddings")

    assert status == 404
    assert "/v1/embeddings" in said["error"]["message"]


def test_a_body_beyond_the_limit_is_refused_with_413(server: Server) -> None:
    status, _, said = post(server, b'{"a": "' + b"x" * (5 * 2**20) + b'"}')

    assert status == 413
    assert said["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_clients_that_leave_free_the_engine_at_once(server: Server, streamed: bool) -> None:
    clients = [open_request(server, stream=streamed) for _ in range(4)]
    assert eventually(lambda: is_busy(server), 60)

    for client in clients:
        client.close()

    assert eventually(lambda: not is_busy(server), 5), "their replies would take minutes"


def test_more_requests_than_seats_are_told_to_come_again(server: Server) -> None:
    clients = [open_request(server, stream=True) for _ in range(16)]
    for client in clients:
        client.recv(1)  # it has begun to be answered

    status, headers, said = post(server, SHORT)
    for client in clients:
        client.close()

    assert status == 429
    assert headers["retry-after"]
    assert said["error"]["code"] == "too_many_requests"
    assert eventually(lambda: post(server, SHORT)[0] == 200)


def nested(depth: int) -> Json:
    schema: Json = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def huge() -> Json:
    return {
        "type": "object",
        "properties": {
            f"p{number}": {"type": "string", "maxLength": 1000} for number in range(1500)
        },
    }


def offer(schema: Json) -> list[Json]:
    return [function("f", "", a=schema)]


HOSTILE: list[Json | bytes] = [
    {"tools": offer(huge()), "tool_choice": "required"},
    {"tools": offer(nested(64)), "tool_choice": "required"},
    b'{"model": "smollm2", "messages": [], "tools": ' + b"[" * 100_000,
    b'{"model": "smollm2", "messages": [], "metadata": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
    {"tools": offer({"enum": [f"value number {number}" for number in range(5000)]})},
    {"tools": offer({"type": "array", "items": nested(8), "minItems": 5000, "maxItems": 9000})},
    {"messages": [{"role": "user", "content": "a" * 2**20}]},
    {"messages": [{"role": "user", "content": "\U0001f600 " * 2**17}]},
    {"n": 16, "max_tokens": 200, "temperature": 2},
    {"max_tokens": 0},
]


def be_hostile(server: Server) -> list[int]:
    """Send all that is meant to hurt; leave the last two, one of them in the middle."""
    statuses = []
    for each in HOSTILE:
        payload = each if isinstance(each, bytes) else json.dumps(body(**each)).encode()
        status, _, _ = post(server, payload)
        statuses.append(status)
    open_request(server, stream=False).close()
    with open_request(server, stream=True) as client:
        client.recv(1)
    return statuses


def be_good(server: Server, number: int) -> int:
    """Ask six times for a call and check it; return how many were right."""
    sdk = Sdk(server.url, server.key, is_async=False)
    right = 0
    for turn in range(6):
        fields = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
        seeded = {"temperature": 1.0, "seed": 100 * number + turn}
        (call,) = calls_of(sdk.asked(**fields, **seeded))
        check(call.function.name, call.function.arguments)
        right += 1
    return right


def test_seven_clients_are_served_though_the_eighth_is_hostile(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        hostile = pool.submit(be_hostile, server)
        good = [pool.submit(be_good, server, number) for number in range(7)]
        right = [client.result() for client in good]
        statuses = hostile.result()

    assert right == [6] * 7
    assert max(statuses) < 500
    assert statuses[1:4] == [400, 400, 400]


def test_after_all_that_the_server_is_ready(server: Server) -> None:
    status, _, said = send(server, "GET", "/ready")

    assert (status, said["status"]) == (200, "ready")
