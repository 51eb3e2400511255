"""The body of a request, within limits of size and time; it may come compressed."""

import zlib
from collections.abc import Callable, Mapping

import anyio
import anyio.to_thread
import zstandard
from fastapi import Request
from starlette.requests import ClientDisconnect

from falsework.server.errors import (
    MAX_QUOTED,
    BadRequestError,
    ClientDisconnected,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

IDLE_SECONDS = 10.0
"""How long the next part of a body may take to come."""

GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
MAX_ZSTD_WINDOW = 8 * 2**20
"""Bytes of memory that a zstd body may ask for; more than any level below the ultra ones needs."""

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
                return await _decoded(request, bytes(body), limit)
            body += piece
            if len(body) > limit:
                raise _too_large(limit)
    raise _too_slow()


def _too_slow() -> RequestTimeout:
    return RequestTimeout(
        f"The body didn't come: parts of it may take {IDLE_SECONDS:.0f} seconds, all of it "
        f"{WHOLE_SECONDS:.0f}."
    )


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body has more than the {limit} bytes that this server allows.")


async def _decoded(request: Request, body: bytes, limit: int) -> bytes:
    """Return a body as it was before it was compressed, and no further than `limit` bytes."""
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in DECODERS:
        known = ", ".join(f"'{name}'" for name in DECODERS)
        raise UnsupportedMediaType(
            f"The body's Content-Encoding '{coding[:MAX_QUOTED]}' isn't known here. Known are: "
            f"{known}."
        )
    try:
        return await anyio.to_thread.run_sync(DECODERS[coding], body, limit)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise BadRequestError(f"The body isn't valid {coding}: {error}.") from error


def _inflated(body: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=GZIP_OR_ZLIB)
    text = unpacker.decompress(body, limit + 1)
    if len(text) > limit:
        raise _too_large(limit)
    if not unpacker.eof:
        raise EOFError("it ends too early")
    return text


def _unzstd(body: bytes, limit: int) -> bytes:
    with zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).stream_reader(body) as reader:
        text = reader.read(limit + 1)
    if len(text) > limit:
        raise _too_large(limit)
    return text


DECODERS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "deflate": _inflated,
    "gzip": _inflated,
    "zstd": _unzstd,
}
