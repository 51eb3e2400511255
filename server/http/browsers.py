"""Requests that a web page makes: without keys, a page must not use the server behind its user.

A page can send a request anywhere, and a DNS name that it owns can come to mean 127.0.0.1. So a
body has to say that it is JSON, which no page may say to another site unasked; the origin of a page
has to be this server's own; and the host has to be a name that nobody can let point here.
"""

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from falsework.server.errors import (
    MAX_QUOTED,
    APIError,
    PermissionDeniedError,
    UnsupportedMediaType,
    error_response,
)

LOCAL_NAMES = frozenset({"", "localhost", "testserver", socket.gethostname().lower()})
ANY_ORIGIN = "*"
"""What stands for every origin where an operator allows all."""

POLICY_VIOLATION = 1008
"""The code that a WebSocket is closed with: before it is accepted, the handshake gets a 403."""

BODY_METHODS = frozenset({"PATCH", "POST", "PUT"})


class BrowserChecks:
    """Refuses bodies that aren't JSON; without keys, foreign origins and hosts, too."""

    def __init__(
        self, app: ASGIApp, *, open_to_all: bool, hosts: Sequence[str], origins: Sequence[str]
    ) -> None:
        self._app = app
        self._open = open_to_all
        self._hosts = LOCAL_NAMES | {host.lower() for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it before its body is read."""
        error = self._check(scope) if scope["type"] in {"http", "websocket"} else None
        if error and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        elif error:
            await error_response(error, scope["path"])(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> APIError | None:
        headers = Headers(scope=scope)
        if self._open:
            host = headers.get("host", "")
            if not self._is_own_host(host):
                return PermissionDeniedError(
                    f"This server doesn't answer to the host '{host[:MAX_QUOTED]}': an operator "
                    "can name it in allowed_hosts.",
                    code="host_not_allowed",
                )
            origin = headers.get("origin")
            if origin is not None and not self._is_own_origin(origin, host):
                return PermissionDeniedError(
                    f"Pages of '{origin[:MAX_QUOTED]}' may not use this server: an operator can "
                    "name it in allowed_origins.",
                    code="origin_not_allowed",
                )
        if scope.get("method") in BODY_METHODS and _has_body(headers) and not _is_json(headers):
            return UnsupportedMediaType(
                "The body should be JSON, and say so: 'Content-Type: application/json'."
            )
        return None

    def _is_own_host(self, host: str) -> bool:
        name = _host_name(f"//{host}")
        return name in self._hosts or name.endswith(".localhost") or _is_address(name)

    def _is_own_origin(self, origin: str, host: str) -> bool:
        origin = origin.lower()
        scheme, _, netloc = origin.partition("://")
        own = scheme in {"http", "https"} and netloc == host.lower() != ""
        return own or origin in self._origins or ANY_ORIGIN in self._origins


def _host_name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return "?"


def _is_address(name: str) -> bool:
    """Tell whether a host is an IP address, which no DNS name can come to mean."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(headers: Headers) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
