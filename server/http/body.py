"""The body of a request, within limits."""

from fastapi import Request
from starlette.requests import ClientDisconnect

from falsework.server.errors import ClientDisconnected, PayloadTooLarge


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request, read no further than the limit."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                raise PayloadTooLarge(
                    f"The body has more than the {limit} bytes that this server allows."
                )
    except ClientDisconnect as fault:
        raise ClientDisconnected("The client went away before the request was complete.") from fault
    return bytes(body)
