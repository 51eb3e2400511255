"""Size limit of response bodies, after decompression.

The limit sits in the HTTP transport, so it also holds for OAuth token responses and for the MCP
library.
"""

import zlib
from collections.abc import AsyncIterator

import httpx2

from falsework.server.tools.errors import ToolCallError

CONTENT_ENCODINGS = frozenset({"gzip", "deflate"})
SSE_CONTENT_TYPE = "text/event-stream"
BAD_ENCODING_MESSAGE = "The upstream's answer is encoded in a way that wasn't asked for."


class ResponseBodyError(ToolCallError, httpx2.StreamError):
    """A body that can't be read: a ToolCallError that HTTP libraries handle as their own."""


class SizeLimitTransport(httpx2.AsyncBaseTransport):
    """A transport whose response bodies raise an error at the size limit."""

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, cap: int, *, exempt_events: bool = False
    ) -> None:
        """`cap` is the limit in bytes; event streams may be exempt, as their reader has its own."""
        self._inner = inner
        self._cap = cap
        self._exempt_events = exempt_events

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        response = await self._inner.handle_async_request(request)
        encoding = response.headers.pop("content-encoding", "identity")
        content_type = response.headers.get("content-type", "").lower()
        is_event_stream = self._exempt_events and content_type.startswith(SSE_CONTENT_TYPE)
        if encoding != "identity" or not is_event_stream:
            assert isinstance(response.stream, httpx2.AsyncByteStream), "the transport is async"
            response.stream = _Body(response.stream, "" if is_event_stream else encoding, self._cap)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, encoding: str, cap: int) -> None:
        self._stream = stream
        self._encoding = encoding
        self._cap = cap

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._encoding not in CONTENT_ENCODINGS | {"identity"}:
            raise ResponseBodyError("bad_response", BAD_ENCODING_MESSAGE, sent=True)
        decompressor = zlib.decompressobj(wbits=47) if self._encoding in CONTENT_ENCODINGS else None
        remaining = self._cap
        async for chunk in self._stream:
            try:
                data = decompressor.decompress(chunk, remaining + 1) if decompressor else chunk
            except zlib.error as error:
                message = "The upstream's answer can't be decompressed."
                raise ResponseBodyError("bad_response", message, sent=True) from error
            remaining -= len(data)
            if remaining < 0:
                message = f"The upstream's answer has more than {self._cap} bytes."
                raise ResponseBodyError("too_large", message, sent=True)
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()
