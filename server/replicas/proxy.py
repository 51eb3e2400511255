"""What runs in Ray Serve's proxies: it names each request's session, by which Serve routes it.

The environment of the nodes has `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` =
`falsework.server.replicas.proxy:middlewares`.
"""

from collections import deque

import anyio
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falsework.server.replicas.sessions import SESSION_HEADER, session_of

MAX_READ_BYTES = 4 * 2**20
"""Of a body; a longer one's session is not looked for in it."""

MAX_READ_SECONDS = 10
"""How long a body is waited for; what is slower meets the replica's own limits."""

SPELLINGS = (SESSION_HEADER.encode(), SESSION_HEADER.replace("-", "_").encode())
"""Ray takes both for the same header."""


def middlewares() -> list[Middleware]:
    """Return what Ray Serve's proxies put before their routing."""
    return [Middleware(SessionMiddleware)]


class SessionMiddleware:
    """Gives each request the header that names its session; the body is read, and passed on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its session's name."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = Headers(scope=scope).get(SESSION_HEADER, "")
        messages = await _read(receive) if scope["method"] == "POST" else deque[Message]()
        body = b"".join(message.get("body", b"") for message in messages)
        session = session_of(scope["path"], named, body)
        headers = [pair for pair in scope["headers"] if pair[0].lower() not in SPELLINGS]
        if session:
            headers.append((SPELLINGS[0], session.encode()))

        async def again() -> Message:
            return messages.popleft() if messages else await receive()

        await self._app({**scope, "headers": headers}, again, send)


async def _read(receive: Receive) -> deque[Message]:
    """Return the messages of a body up to its end, or to a limit of size or time."""
    messages: deque[Message] = deque()
    size, more = 0, True
    with anyio.move_on_after(MAX_READ_SECONDS):
        while more and size < MAX_READ_BYTES:
            messages.append(await receive())
            size += len(messages[-1].get("body", b""))
            more = messages[-1].get("more_body", False)
    return messages
