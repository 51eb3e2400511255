"""What a web page can't do: use the server of its visitor, by any of its ways."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.chat_bodies import Json
from support.clients import CHAT, HELLO, sent
from support.scripted_app import SETTINGS, Running, calls, running, scaffold_of
from support.tool_app import an_upstream, house_of
from support.upstream import http_tool

from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import TurnBuilder

RESPONSES = "/v1/responses"
WRITING: Json = {
    "model": "smollm2",
    "input": "?",
    "tools": [{"type": "server_tool", "name": "save"}],
}


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


@pytest.fixture(scope="module")
def house(scaffold: TurnBuilder) -> Iterator[Running]:
    with running(ScriptedEngine(ScriptedReply(["Hello."])), scaffold) as running_house:
        yield running_house


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content_type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content_type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({"content_type": "multipart/form-data; boundary=x"}, 415, "unsupported_media_type"),
        ({"content_type": ""}, 415, "unsupported_media_type"),
        ({"content_type": "text/plain; a=application/json"}, 415, "unsupported_media_type"),
        ({"origin": "https://evil.example"}, 403, "origin_not_allowed"),
        ({"origin": "null"}, 403, "origin_not_allowed"),
        ({"origin": "http://localhost:1"}, 403, "origin_not_allowed"),
        ({"origin": "http://[bad"}, 403, "origin_not_allowed"),
        ({"host": "evil.example"}, 403, "host_not_allowed"),
        ({"host": "evil.example:8000", "origin": "http://evil.example:8000"}, 403,
         "host_not_allowed"),
        ({"host": "localhost.evil.example"}, 403, "host_not_allowed"),
        ({"host": "127.0.0.1.evil.example"}, 403, "host_not_allowed"),
        ({"host": "[bad"}, 403, "host_not_allowed"),
    ],
)  # fmt: skip
def test_a_cross_site_or_rebound_request_makes_no_write(
    scaffold: TurnBuilder, headers: dict[str, str], status: int, code: str
) -> None:
    with an_upstream() as up:
        file = {"tools": [http_tool(up, "save", method="POST")]}
        with house_of(scaffold, calls(("save", "{}")), "Saved.", file=file) as house:
            reply = sent(house, "POST", RESPONSES, WRITING, **headers)

    assert (reply.status, reply.error["code"], up.seen) == (status, code, [])


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "application/json; charset=utf-8"},
        {"content_type": "application/vnd.api+json"},
        {"host": "localhost:8000", "origin": "http://localhost:8000"},
        {"host": "127.0.0.1"},
        {"host": "[::1]:8000"},
        {"host": "10.1.2.3:8000"},
        {"host": "box.localhost"},
    ],
)
def test_an_own_client_is_answered(house: Running, headers: dict[str, str]) -> None:
    assert sent(house, "POST", CHAT, HELLO, **headers).status == 200


def test_what_the_operator_allows_is_answered(scaffold: TurnBuilder) -> None:
    allowed = {"allowed_hosts": ("gpu.example",), "allowed_origins": ("https://app.example",)}
    settings = SETTINGS.model_copy(update=allowed)
    page: dict[str, Any] = {"host": "gpu.example", "origin": "https://app.example"}
    with running(ScriptedEngine(ScriptedReply(["Hi."])), scaffold, settings) as house:
        reply = sent(house, "POST", CHAT, HELLO, **page)
        other = sent(house, "POST", CHAT, HELLO, host="gpu.example", origin="https://b.example")

    assert (reply.status, other.status) == (200, 403)
    assert reply.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("allowed", ["https://app.example", "*"])
@pytest.mark.parametrize("path", [CHAT, RESPONSES, "/v1/messages", "/v1/models"])
def test_a_browser_may_ask_first(scaffold: TurnBuilder, allowed: str, path: str) -> None:
    settings = SETTINGS.model_copy(update={"allowed_origins": (allowed,), "api_key": ("k",)})
    preflight: dict[str, Any] = {
        "origin": "https://app.example",
        "access_control_request_method": "POST",
        "access_control_request_headers": "authorization,content-type,x-stainless-os",
    }
    with running(ScriptedEngine(ScriptedReply(["Hi."])), scaffold, settings) as house:
        reply = sent(house, "OPTIONS", path, **preflight)

    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] in {"https://app.example", "*"}
    assert "authorization" in reply.headers["access-control-allow-headers"].lower()
    assert "POST" in reply.headers["access-control-allow-methods"]


def test_a_browser_that_nobody_allowed_is_told_nothing(house: Running) -> None:
    preflight: dict[str, Any] = {
        "origin": "https://app.example", "access_control_request_method": "POST"
    }  # fmt: skip
    reply = sent(house, "OPTIONS", CHAT, **preflight)

    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers


def test_with_keys_a_server_may_have_any_name(scaffold: TurnBuilder) -> None:
    settings = SETTINGS.model_copy(update={"api_key": ("k",)})
    named: dict[str, Any] = {"host": "models.example", "origin": "https://app.example"}
    with running(ScriptedEngine(ScriptedReply(["Hi."])), scaffold, settings) as house:
        reply = sent(house, "POST", CHAT, HELLO, authorization="Bearer k", **named)
        keyless = sent(house, "POST", CHAT, HELLO, **named)

    assert (reply.status, keyless.status) == (200, 401)
