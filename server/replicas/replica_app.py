"""A replica's application as Ray Serve calls it."""

import ipaddress
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from falsework.server.errors import PermissionDeniedError, error_response


class ReplicaApp:
    """Passes on what the application's lifespan yields, and keeps strangers out.

    Ray's proxy listens where its own options say, so that no setting tells whether a server
    without keys can be reached from other machines: each request tells by the address it came to.
    """

    def __init__(self, app: ASGIApp, *, open_to_all: bool) -> None:
        self._app = app
        self._open_to_all = open_to_all
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] == "lifespan":
            self._state = scope.setdefault("state", self._state)
        elif not self._open_to_all and not _came_from_here(scope):
            refusal = PermissionDeniedError(
                "This server can be reached from other machines; set api_key, or allow_open to "
                "let everyone in."
            )
            await error_response(refusal)(scope, receive, send)
            return
        else:
            scope["state"] = dict(self._state)
        await self._app(scope, receive, send)


def _came_from_here(scope: Scope) -> bool:
    host, _ = scope.get("server") or ("", 0)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
