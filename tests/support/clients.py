"""Clients of a running server: the official one, and two that see the raw reply."""

import json
import socket
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import openai

from support.chat_bodies import USER, Json
from support.scripted_app import Running

CHAT = "/v1/chat/completions"
HELLO = {"model": "smollm2", "messages": [USER]}


class Reply:
    """A reply, read to its end."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode()

    @property
    def json(self) -> Json:
        parsed: Json = json.loads(self.text)
        return parsed

    @property
    def error(self) -> Json:
        body = self.json
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        error: Json = body["error"]
        return error


def sent(
    house: Running, method: str, path: str, body: Any = None, timeout: float = 10, **headers: str
) -> Reply:
    connection = HTTPConnection("127.0.0.1", house.port, timeout=timeout)
    raw = json.dumps(body).encode() if isinstance(body, dict) else body
    headers = {"content_type": "application/json", **headers} if body is not None else headers
    try:
        connection.request(method, path, raw, {k.replace("_", "-"): v for k, v in headers.items()})
        return Reply(connection.getresponse())
    finally:
        connection.close()


def client(house: Running, key: str = "k") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0, timeout=10)


def left_open(house: Running, **fields: Any) -> socket.socket:
    """Send a request and don't read the reply."""
    body = json.dumps({**HELLO, **fields}).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", house.port), timeout=10)
    connection.sendall(head.encode() + body)
    return connection


def read_to_end(connection: socket.socket) -> str:
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
