"""The body of a request, within limits of size and time."""

import anyio
from fastapi import Request
from starlette.requests import ClientDisconnect

from falsework.server.errors import ClientDisconnected, PayloadTooLarge, RequestTimeout

IDLE_SECONDS = 10.0
"""How long the next part of a body may take to come."""

WHOLE_SECONDS = 60.0
"""How long the whole body may take to come."""


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request, read no further than `limit` bytes.

    Raise PayloadTooLarge, RequestTimeout or ClientDisconnected.
    """
    body = bytearray()
    with anyio.move_on_after(WHOLE_SECONDS):
        pieces = aiter(request.stream())
        while True:
            with anyio.move_on_after(IDLE_SECONDS) as wait:
                try:
                    piece = await anext(pieces, None)
                except ClientDisconnect as error:
                    message = "The client went away before the request was complete."
                    raise ClientDisconnected(message) from error
            if wait.cancelled_caught:
                raise _too_slow()
            if piece is None:
                return bytes(body)
            body += piece
            if len(body) > limit:
                raise PayloadTooLarge(
                    f"The body has more than the {limit} bytes that this server allows."
                )
    raise _too_slow()


def _too_slow() -> RequestTimeout:
    return RequestTimeout(
        f"The body didn't come: parts of it may take {IDLE_SECONDS:.0f} seconds, all of it "
        f"{WHOLE_SECONDS:.0f}."
    )
