"""Egress rules: the hosts and addresses that a tool may connect to, checked after resolution."""

import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2

from falsework.server.observability import telemetry
from falsework.server.tools.config import EgressPolicy
from falsework.server.tools.errors import ToolCallError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class EgressRules:
    """The allowed destinations of one upstream."""

    hosts: frozenset[str]
    deny_private: bool
    require_tls: bool


def egress_rules(egress: EgressPolicy, urls: Iterable[str]) -> EgressRules:
    """Return the rules of an upstream with these URLs, which stand in the tools file."""
    hosts = [httpx2.URL(url).host for url in urls]
    has_private = any(_names_private(host) for host in hosts)
    deny_private = egress.deny_private if egress.deny_private is not None else not has_private
    require_tls = egress.require_tls if egress.require_tls is not None else deny_private
    return EgressRules(frozenset({*hosts, *egress.allow_hosts}), deny_private, require_tls)


def _names_private(host: str) -> bool:
    try:
        return not is_public(ipaddress.ip_address(host))
    except ValueError:
        return host == "localhost"


def is_public(address: Address) -> bool:
    """Tell whether an address is public; addresses embedded in IPv6 are unwrapped."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast


class EgressTransport(httpx2.AsyncBaseTransport):
    """Resolves a name once, checks every address, and connects to the first that answers.

    A name that resolves to something else a moment later (DNS rebinding) changes nothing.
    """

    def __init__(self, rules: EgressRules, inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._rules = rules
        self._inner = inner or httpx2.AsyncHTTPTransport(
            limits=httpx2.Limits(max_connections=None, keepalive_expiry=5)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; raise a ToolCallError `blocked_egress` before any byte is sent."""
        url = request.url
        if url.host not in self._rules.hosts:
            raise _blocked_error("This tool may not connect to that host.", "host")
        if self._rules.require_tls and url.scheme != "https":
            raise _blocked_error("This tool may only connect with TLS.", "tls")
        *others, last = await self._resolve(url.host, url.port or _PORTS[url.scheme])
        for address in others:
            with suppress(httpx2.ConnectError, httpx2.ConnectTimeout):
                return await self._inner.handle_async_request(_pin_address(request, address))
        return await self._inner.handle_async_request(_pin_address(request, last))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def _resolve(self, host: str, port: int) -> list[str]:
        try:
            entries: list[Any] = list(await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, OverflowError, UnicodeError) as error:  # invalid names and ports
            raise ToolCallError(
                "unavailable", "The upstream's name can't be resolved.", "connect"
            ) from error
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries]
        if self._rules.deny_private and not all(map(is_public, addresses)):
            raise _blocked_error("This tool may not connect to private addresses.", "private")
        return list(dict.fromkeys(map(str, addresses)))


_PORTS = {"http": 80, "https": 443}


def _pin_address(request: httpx2.Request, address: str) -> httpx2.Request:
    url = request.url
    return httpx2.Request(
        request.method,
        url.copy_with(host=address),
        headers=request.headers,  # Host is the name still
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": url.host},
    )


def _blocked_error(message: str, reason: str) -> ToolCallError:
    telemetry.EGRESS_BLOCKED.labels(reason).inc()
    return ToolCallError("blocked_egress", message)
