"""Where tools may connect to, whatever names and addresses say."""

import ipaddress
from typing import Any

import anyio
import httpx2
import pytest
from support.upstream import Upstream, call, http_tool, kind, toolbox, upstream

from falsework.server.tools.config.policies import EgressPolicy
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.egress import EgressTransport, egress_rules, is_public

pytestmark = pytest.mark.anyio


class Answering(httpx2.AsyncBaseTransport):
    """Says yes to everything, and knows at which addresses."""

    def __init__(self, *refusing: str) -> None:
        self.asked: list[str] = []
        self._refusing = refusing

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.host)
        if request.url.host in self._refusing:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(200, json=len(await request.aread()))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return what names lead to, one list for each time that one is resolved."""
    answers: list[list[str]] = []

    async def resolve(_: str, port: int, **__: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, port)) for address in answers.pop(0)]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    return answers


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_an_address_of_the_public_network_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1"),
        *("192.168.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::8.8.8.8"),
        *("64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808", "100::1"),
        *("2002:7f00:1::", "2001:0:808:808::80ff:fffe", "2001:db8::1"),
        *("fc00::1", "fd00::1", "fe80::1", "fec0::1", "ff02::1"),
    ],
)
def test_a_private_address_is_private_whatever_it_is_wrapped_in(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


async def test_a_name_that_leads_elsewhere_a_moment_later_is_checked_again(
    names: list[list[str]],
) -> None:
    names += [["8.8.8.8"], ["127.0.0.1"], ["8.8.8.8", "10.0.0.1"]]
    inner = Answering()
    allowed = egress_rules(EgressPolicy(), ["https://api.example/"])
    async with httpx2.AsyncClient(transport=EgressTransport(allowed, inner)) as client:
        assert (await client.get("https://api.example/")).is_success
        for _ in range(2):
            with pytest.raises(ToolCallError, match="blocked_egress"):
                await client.get("https://api.example/")

    assert inner.asked == ["8.8.8.8"]


async def test_a_private_listener_receives_nothing(names: list[list[str]]) -> None:
    async with upstream() as up:
        names += [["127.0.0.1"]] * 2
        egress = {"deny_private": True, "require_tls": False}
        http = {"url": f"http://api.example:{up.port}/"}
        async with toolbox({**http_tool(up, egress=egress), "http": http}) as box:
            outcome = await call(box)

        assert (kind(outcome), up.seen, up.open) == ("blocked_egress", [], 0)


async def test_the_next_address_is_tried_where_one_refuses(names: list[list[str]]) -> None:
    names += [["8.8.8.8", "8.8.4.4"], ["8.8.8.8"]]
    inner = Answering("8.8.8.8")
    allowed = egress_rules(EgressPolicy(), ["https://api.example/"])
    async with httpx2.AsyncClient(transport=EgressTransport(allowed, inner)) as client:
        answered = await client.post("https://api.example/", json={"a": 1})
        with pytest.raises(httpx2.ConnectError):
            await client.get("https://api.example/")

    assert answered.json() == len(b'{"a":1}')
    assert inner.asked == ["8.8.8.8", "8.8.4.4", "8.8.8.8"]


@pytest.mark.parametrize(
    ("egress", "url", "allowed"),
    [
        ({}, "https://api.example/", True),
        ({}, "http://api.example/", False),
        ({"require_tls": False}, "http://api.example/", True),
        ({}, "https://other.example/", False),
        ({"allow_hosts": ["other.example"]}, "https://other.example/", True),
        ({"allow_hosts": ["other.example"]}, "https://sub.other.example/", False),
    ],
)
async def test_hosts_and_tls_are_what_the_operator_says(
    egress: dict[str, Any], url: str, allowed: bool, names: list[list[str]]
) -> None:
    names += [["8.8.8.8"]]
    inner = Answering()
    ours = egress_rules(EgressPolicy.model_validate(egress), ["https://api.example/"])
    async with httpx2.AsyncClient(transport=EgressTransport(ours, inner)) as client:
        if allowed:
            assert (await client.get(url)).is_success
        else:
            with pytest.raises(ToolCallError, match="blocked_egress"):
                await client.get(url)

    assert len(inner.asked) == allowed


async def test_an_upstream_that_is_named_by_its_private_address_may_be_reached() -> None:
    async with upstream() as up, toolbox(http_tool(up)) as box:
        assert (await call(box)).ok
    assert egress_rules(EgressPolicy(), [Upstream(port=1).url]).deny_private is False


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://nowhere.invalid/", "unavailable"),
        ("https://localhost.localdomain/", "blocked_egress"),
        ("https://127.0.0.1.nip.example/", "blocked_egress"),
    ],
)
async def test_names_that_lead_to_private_addresses_are_blocked_before_a_byte_is_sent(
    url: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        if "invalid" in host:
            raise OSError(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)
    tool = {**http_tool(Upstream()), "http": {"url": url}, "retry": {"base": "0ms"}}
    async with toolbox(tool) as box:
        outcome = await call(box)

    assert kind(outcome) == expected
