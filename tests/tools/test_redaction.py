"""Secrets of the tools file: upstreams that echo them, in whatever encoding, tell nobody."""

import asyncio
import base64
import html
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from structlog.testing import capture_logs
from support.misbehaving_mcp_server import TOOL
from support.upstream import Json, Seen, call, http_tool, kind, run, says, toolbox, upstream

from falsework.server.tools.redaction import MASK, Redactor
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import ToolCall

SECRET = 'to/ken+"of ümlaut"%20=='
PASSWORD = "hunter2"
SCRIPT = str(Path(__file__).parents[1] / "support" / "misbehaving_mcp_server.py")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": json.dumps,
    "json in json": lambda text: json.dumps(json.dumps({"a": text})),
    "url": lambda text: quote(text, safe=""),
    "path": quote,
    "form": quote_plus,
    "url twice": lambda text: quote(quote(text, safe=""), safe=""),
    "html": html.escape,
    "base64": b64,
    "base64 inside": lambda text: b64(f"x{text}yz"),
    "base64 of a pair": lambda text: b64(f"user:{text}"),
    "base64 in a url": lambda text: quote(b64(text), safe=""),
    "url-safe base64": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "escapes": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "some percent signs": lambda text: "".join(
        f"%{ord(letter):02X}"
        if letter.isascii() and (letter.isalpha() or letter == "%")
        else letter
        for letter in text
    ),
}


def leaks(text: str, secret: str) -> bool:
    """Tell whether a text has the secret in any of the encodings, whole."""
    return any(encode(secret).strip('"=') in text for encode in ENCODINGS.values())


@pytest.mark.parametrize("secret", [SECRET, PASSWORD, "1234567890"])
@pytest.mark.parametrize("name", ENCODINGS)
def test_a_secret_is_found_in_every_common_encoding(name: str, secret: str) -> None:
    redactor = Redactor()
    redactor.add(secret)

    redacted = redactor.redact_text(f"before {ENCODINGS[name](secret)} after")

    assert MASK in redacted
    assert not leaks(redacted, secret)
    assert redacted.startswith("before ")
    assert redacted.endswith(" after")


def test_what_holds_no_secret_stays_as_it_is() -> None:
    redactor = Redactor()
    redactor.add(SECRET)
    redactor.add("abc")  # too short to be told from a word
    value = {"a": ["100 %25 + &amp; \\u0041 abc", 1.5, None, True], "b": {}}

    assert redactor.redact(value) is value


def test_keys_and_numbers_are_redacted_too() -> None:
    redactor = Redactor()
    redactor.add("12345678")

    assert redactor.redact({"12345678": [12345678, "x12345678", 5]}) == {
        MASK: [MASK, f"x{MASK}", 5]
    }


AUTHS: dict[str, Json] = {
    "bearer": {"type": "bearer", "token": {"env": "SECRET_OF_TESTS"}},
    "header": {"type": "header", "name": "x-key", "value": {"env": "SECRET_OF_TESTS"}},
    "basic": {
        "type": "basic",
        "user": {"env": "USER_OF_TESTS"},
        "password": {"env": "SECRET_OF_TESTS"},
    },
}


def echoes(status: int, encode: Callable[[str], str]) -> Any:
    async def behave(seen: Seen, writer: asyncio.StreamWriter) -> None:
        named = ("authorization", "x-key")
        dump = {name: encode(value) for name, value in seen.headers.items() if name in named}
        await says({"headers": dump, "text": str(dump)}, status)(seen, writer)

    return behave


@pytest.mark.anyio
@pytest.mark.parametrize("auth", AUTHS)
@pytest.mark.parametrize("status", [200, 400, 403])
@pytest.mark.parametrize("name", ["plain", "base64", "url"])
async def test_an_upstream_that_echoes_its_credentials_tells_neither_model_nor_store_nor_log(
    name: str, status: int, auth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a-secret/of+tests=="
    monkeypatch.setenv("SECRET_OF_TESTS", secret)
    monkeypatch.setenv("USER_OF_TESTS", "user-of-tests")
    recorded: list[ToolResult] = []

    async def record(outcome: ToolResult) -> None:
        recorded.append(outcome)

    async with upstream(always=echoes(status, ENCODINGS[name])) as up:
        async with toolbox(http_tool(up, method="POST", auth=AUTHS[auth])) as box:
            with capture_logs() as logged:
                call_ = ToolCall("1", "look", "{}")
                (outcome,) = await run(box, record=record).execute([call_])

    sent = up.seen[0].headers
    assert secret in sent.get("x-key", secret)
    assert kind(outcome) == ("ok" if status == 200 else "upstream_rejected")
    told = outcome.for_model() + repr(recorded) + str(outcome.to_openai()) + str(logged)
    assert MASK in told
    assert not leaks(told, secret)
    assert not leaks(told, f"user-of-tests:{secret}")


@pytest.mark.anyio
async def test_a_token_that_credentials_were_exchanged_for_is_redacted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_OF_TESTS", "the-client-secret")
    grant = says({"access_token": "granted-token", "expires_in": 300})
    async with upstream(grant, always=echoes(200, str)) as up:
        auth = {
            "type": "oauth2_client_credentials",
            "token_url": f"{up.url}/token",
            "client_id": {"env": "SECRET_OF_TESTS"},
            "client_secret": {"env": "SECRET_OF_TESTS"},
        }
        async with toolbox(http_tool(up, auth=auth)) as box:
            outcome = await call(box)

    assert up.seen[1].headers["authorization"] == "Bearer granted-token"
    assert f"Bearer {MASK}" in outcome.for_model()
    assert "granted-token" not in outcome.for_model()


@pytest.mark.anyio
async def test_an_mcp_server_that_echoes_its_environment_tells_it_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_OF_TESTS", "a-secret-of-tests")
    script = {
        "tools/list": {"tools": [{**TOOL, "description": "Uses a-secret-of-tests."}]},
        "tools/call": {"error": {"code": -32050, "message": "no: a-secret-of-tests"}},
    }
    server = {
        "command": [sys.executable, SCRIPT, json.dumps(script)],
        "environment": {"KEY": {"env": "SECRET_OF_TESTS"}},
        "tools": ["t"],
    }
    async with toolbox(servers={"here": server}) as box:
        outcome = await call(box, name="here__t")
        description = box.tools["here__t"].description

    assert description == f"Uses {MASK}."
    assert outcome.error is not None
    assert outcome.error.message == f"The MCP server refused: no: {MASK}"
