"""Secrets reach the upstream, are renewed there, and are seen nowhere else."""

import base64
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.upstream import (
    Behaviour,
    Json,
    Upstream,
    call,
    http_tool,
    kind,
    says,
    says_bytes,
    upstream,
)
from support.upstream import toolbox as opened_with

from falsework.server.tools.config.loader import ToolsFileError

pytestmark = pytest.mark.anyio

SECRET = "hunter2-of-the-operator"
PAIR = base64.b64encode(f"us:{SECRET}".encode()).decode()
TOKEN = says({"access_token": "token-one", "expires_in": 300})
OTHER_TOKEN = says({"access_token": "token-two", "expires_in": 300})


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_OF_TESTS", "us")
    monkeypatch.setenv("SECRET_OF_TESTS", SECRET)


def oauth(up: Upstream, **fields: Any) -> Json:
    grant = {"type": "oauth2_client_credentials", "token_url": f"{up.url}/token", **fields}
    places = {"client_id": {"env": "USER_OF_TESTS"}, "client_secret": {"env": "SECRET_OF_TESTS"}}
    return http_tool(up, auth={**grant, **places}, retry={"base": "1ms"})


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"type": "bearer", "token": {"env": "SECRET_OF_TESTS"}}, "authorization",
         f"Bearer {SECRET}"),
        ({"type": "header", "name": "X-Key", "value": {"env": "SECRET_OF_TESTS"}}, "x-key", SECRET),
        ({"type": "basic", "user": {"env": "USER_OF_TESTS"},
          "password": {"env": "SECRET_OF_TESTS"}}, "authorization", f"Basic {PAIR}"),
    ],
)  # fmt: skip
async def test_a_secret_reaches_the_upstream(auth: Json, header: str, value: str) -> None:
    async with upstream() as up, opened_with(http_tool(up, auth=auth)) as box:
        assert (await call(box)).ok

        assert up.seen[0].headers[header] == value


async def test_a_token_is_asked_for_once_and_used_until_it_expires() -> None:
    async with upstream(TOKEN) as up:
        async with opened_with(oauth(up, scopes=["a", "b"])) as box:
            ends = [await call(box, f'{{"id": {n}}}') for n in range(3)]

        first, *others = up.seen
        assert all(end.ok for end in ends)
        assert parse_qs(first.body.decode()) == {
            "grant_type": ["client_credentials"],
            "scope": ["a b"],
        }
        assert first.headers["authorization"] == f"Basic {PAIR}"
        assert [one.headers["authorization"] for one in others] == ["Bearer token-one"] * 3


async def test_a_token_that_is_refused_is_asked_for_once_more() -> None:
    no = says({}, 401)
    async with upstream(TOKEN, no, OTHER_TOKEN, says("in"), no, TOKEN, no) as up:
        async with opened_with(oauth(up)) as box:
            ends = [await call(box, f'{{"id": {n}}}') for n in range(2)]

        assert [kind(end) for end in ends] == ["ok", "upstream_rejected"]
        paths = [one.path.partition("?")[0] for one in up.seen]
        assert paths == ["/token", "/look", "/token", "/look", "/look", "/token", "/look"]


@pytest.mark.parametrize(
    ("given", "expected", "asked"),
    [
        (says({}, 401), "upstream_rejected", 1),
        (says({}, 503), "unavailable", 3),
        (says({"token": "hidden"}), "upstream_rejected", 1),
        (says(["hidden"]), "upstream_rejected", 1),
        (says({"access_token": "line\nbreak"}), "upstream_rejected", 1),
        (says({"access_token": 5}), "upstream_rejected", 1),
        (says({"access_token": "hidden", "expires_in": "soon"}), "upstream_rejected", 1),
        (says_bytes(b"<html>", content_type="text/html"), "upstream_rejected", 1),
        (says_bytes(b"[" * 100_000), "upstream_rejected", 1),
        (says_bytes(b" " * 300_000), "too_large", 1),
    ],
)
async def test_what_gives_no_token_is_a_fault_and_the_tool_is_not_called(
    given: Behaviour, expected: str, asked: int
) -> None:
    async with upstream(always=given) as up, opened_with(oauth(up)) as box:
        outcome = await call(box)

        assert (kind(outcome), [one.path for one in up.seen]) == (expected, ["/token"] * asked)
        assert "hidden" not in outcome.for_model()


async def test_a_secret_that_no_header_can_hold_is_told_before_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_OF_TESTS", "two\nlines")
    auth = {"type": "bearer", "token": {"env": "SECRET_OF_TESTS"}}
    with pytest.raises(ToolsFileError, match="the secret for the header authorization") as caught:
        async with opened_with(http_tool(Upstream(), auth=auth)):
            pass
    assert "two" not in str(caught.value)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(
        "falsework.server.observability.telemetry.TRACER", provider.get_tracer("tests")
    )
    yield exporter
    provider.shutdown()


async def test_secrets_are_in_no_outcome_log_or_span(
    spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with upstream(TOKEN, says({}, 500), says("in")) as up:
        async with opened_with(oauth(up)) as box:
            outcomes = [await call(box, f'{{"id": {n}}}') for n in range(2)]
            shown = [repr(outcomes), repr(vars(box.tools["look"])), caplog.text]

    assert [kind(outcome) for outcome in outcomes] == ["upstream_error", "ok"]
    told = "".join([*shown, *(span.to_json() for span in spans.get_finished_spans())])
    assert spans.get_finished_spans()
    assert not [secret for secret in (SECRET, PAIR, "token-one") if secret in told]
