"""What an HTTP tool sends: the operator's words, and the model's arguments where they belong."""

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from support.upstream import Json, call, http_tool, kind, toolbox, upstream

pytestmark = pytest.mark.anyio

ANYTHING = {"type": "object"}


async def sent(arguments: Json, path: str = "/x", **http: Any) -> Any:
    """Return the one request that a call makes, and the call's outcome."""
    async with upstream() as up:
        tool = http_tool(up, parameters=ANYTHING)
        async with toolbox({**tool, "http": {"url": up.url + path, **http}}) as box:
            outcome = await call(box, json.dumps(arguments))
            calls = box.upstreams[up.url].breaker
        assert calls.state == "closed"
        return (up.seen[0] if up.seen else None), outcome


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/x", {"tenant": "acme"}, {"tenant": "acme", "q": "a"}),
        ("/x?tenant=acme", {}, {"tenant": "acme", "q": "a"}),
        ("/x?tenant=acme", {"as": "{q}"}, {"tenant": "acme", "as": "a"}),
        ("/x?tenant={q}", {}, {"tenant": "a"}),
        ("/x", {"tenant": "{team}"}, {"q": "a"}),
    ],
)
async def test_what_the_operator_fixed_is_not_the_models_to_change(
    path: str, query: Json, expected: Json
) -> None:
    seen, _ = await sent({"q": "a", "tenant": "evil"}, path, query=query)

    assert dict(parse_qsl(seen.path.partition("?")[2])) == expected


async def test_a_body_of_the_operators_is_the_whole_body() -> None:
    body = {"tenant": "acme", "query": {"text": "{q}"}}
    seen, _ = await sent({"q": "a", "tenant": "evil"}, method="POST", body=body)

    assert json.loads(seen.body) == {"tenant": "acme", "query": {"text": "a"}}


async def test_a_header_is_left_out_without_its_optional_argument() -> None:
    headers = {"x-team": "{team}", "x-tenant": "acme"}
    without, _ = await sent({"x-tenant": "evil"}, headers=headers)
    given, _ = await sent({"team": 7}, headers=headers)

    assert "x-team" not in without.headers
    assert (given.headers["x-team"], given.headers["x-tenant"]) == ("7", "acme")


@pytest.mark.parametrize(
    ("arguments", "http"),
    [
        ({"team": "a\nb"}, {"headers": {"x-team": "{team}"}}),
        ({"team": "a\r\nx-admin: 1"}, {"headers": {"x-team": "{team}"}}),
        ({"team": "é"}, {"headers": {"x-team": "is {team}"}}),
        ({"team": ".."}, {"path": "/{team}"}),
        ({"team": "a" * 70_000}, {"path": "/{team}"}),
        ({}, {"path": "/{team}"}),
        ({}, {"headers": {"x-team": "is {team}"}}),
    ],
)
async def test_arguments_that_cannot_be_sent_are_invalid_and_nothing_is_sent(
    arguments: Json, http: Json
) -> None:
    seen, outcome = await sent(arguments, **http)

    assert (kind(outcome), outcome.attempts, seen) == ("invalid_arguments", 1, None)
