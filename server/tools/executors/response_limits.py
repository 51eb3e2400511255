"""The bodies of answers: unpacked, and cut as soon as they are larger than their cap.

It stands in the transport, so that whoever reads an answer gets no more: a tool, a token's holder,
the library that speaks MCP.
"""

import zlib
from collections.abc import AsyncIterator

import httpx2

from falsework.server.tools.errors import ToolCallError

CONTENT_ENCODINGS = frozenset({"gzip", "deflate"})
SSE_CONTENT_TYPE = "text/event-stream"
BAD_ENCODING_MESSAGE = "The upstream's answer is encoded in a way that wasn't asked for."


class ResponseBodyError(ToolCallError, httpx2.StreamError):
    """A body that can't be read: a fault of ours, and one that HTTP libraries expect."""


class SizeLimitTransport(httpx2.AsyncBaseTransport):
    """Hands on answers of another transport whose bodies end at the cap, in a fault."""

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, cap: int, *, but_events: bool = False
    ) -> None:
        """`cap` bounds the bytes after decompression; of events their reader may have its own."""
        self._inner = inner
        self._cap = cap
        self._but_events = but_events

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        response = await self._inner.handle_async_request(request)
        encoding = response.headers.pop("content-encoding", "identity")
        said = response.headers.get("content-type", "").lower()
        events = self._but_events and said.startswith(SSE_CONTENT_TYPE)
        if encoding != "identity" or not events:
            assert isinstance(response.stream, httpx2.AsyncByteStream), "the transport is async"
            response.stream = _Body(response.stream, "" if events else encoding, self._cap)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, raw: httpx2.AsyncByteStream, encoding: str, cap: int) -> None:
        self._raw = raw
        self._encoding = encoding
        self._cap = cap

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._encoding not in CONTENT_ENCODINGS | {"identity"}:
            raise ResponseBodyError("bad_response", BAD_ENCODING_MESSAGE, sent=True)
        unpacked = zlib.decompressobj(wbits=47) if self._encoding in CONTENT_ENCODINGS else None
        left = self._cap
        async for raw in self._raw:
            try:
                piece = unpacked.decompress(raw, left + 1) if unpacked else raw
            except zlib.error as fault:
                message = "The upstream's answer can't be decompressed."
                raise ResponseBodyError("bad_response", message, sent=True) from fault
            left -= len(piece)
            if left < 0:
                message = f"The upstream's answer has more than {self._cap} bytes."
                raise ResponseBodyError("too_large", message, sent=True)
            yield piece

    async def aclose(self) -> None:
        await self._raw.aclose()
