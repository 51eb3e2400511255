"""A tool that is one HTTP request."""

import email.utils
import json
import math
import time
import zlib
from collections.abc import Mapping
from string import Formatter
from typing import Any
from urllib.parse import quote

import httpx2

from falsework.runtime.checks import parsed
from falsework.runtime.conditions import filled
from falsework.runtime.entries import Http
from falsework.runtime.executors.base import Described, Json, Ticket
from falsework.runtime.faults import Fault, Kind

IN_QUERY = frozenset({"GET", "HEAD", "DELETE"})
DEADLINE = "x-request-deadline-ms"
EXCERPT = 500
"""Characters of an upstream's refusal that the model is told."""


class HttpExecutor:
    """Sends one request per attempt."""

    def __init__(
        self, request: Http, client: httpx2.AsyncClient, key_header: str | None, cap: int
    ) -> None:
        """`cap` bounds the bytes of a response after decompression."""
        self._request = request
        self._client = client
        self._key_header = key_header
        self._cap = cap
        url = httpx2.URL(request.url.replace("{", "").replace("}", ""))
        self.upstream = f"{url.scheme}://{url.netloc.decode()}"

    async def describe(self) -> Described:
        """Return nothing: the tools file says everything."""
        return Described()

    async def attempt(self, arguments: Json, ticket: Ticket) -> Any:
        """Return the response's JSON, or its text."""
        request = self._built(arguments, ticket)
        try:
            response = await self._client.send(request, stream=True)
            try:
                body = await _read(response, self._cap)
            finally:
                await response.aclose()
        except httpx2.TransportError as fault:
            raise _broken(fault, ticket) from fault
        return _result(response, body)

    def _built(self, arguments: Json, ticket: Ticket) -> httpx2.Request:
        asked = self._request
        try:
            url = _path(asked.url, arguments)
            query = {key: filled(value, arguments) for key, value in asked.query.items()
                     if _given(value, arguments)}  # fmt: skip
            headers = {key: str(filled(value, arguments)) for key, value in asked.headers.items()}
            body = filled(asked.body, arguments)
        except (KeyError, ValueError) as fault:
            raise Fault("invalid_arguments", f"The argument {fault} is missing.") from fault
        rest = {key: value for key, value in arguments.items() if key not in _places(asked)}
        in_query = asked.method in IN_QUERY
        if in_query:
            query |= rest
        left = {DEADLINE: str(max(0, int(ticket.deadline.left() * 1000)))}
        key = {self._key_header: ticket.key} if self._key_header and ticket.key else {}

        async def noticed(event: str, _: Mapping[str, Any]) -> None:
            ticket.sent |= event.endswith(".send_request_headers.started")

        return self._client.build_request(
            asked.method,
            url,
            params=query or None,
            headers={"accept-encoding": "gzip", **headers, **left, **key, **ticket.headers},
            json=None if in_query else body if body is not None else rest,
            extensions={"trace": noticed},
        )


def _places(asked: Http) -> set[str]:
    """Return the arguments that url, query, headers and body name."""
    texts = [asked.url, json.dumps([asked.query, asked.headers, asked.body])]
    return {
        name for text in texts for piece in text.split("{")[1:]
        if (name := piece.partition("}")[0]).isidentifier()
    }  # fmt: skip


def _given(template: Any, arguments: Json) -> bool:
    """Tell whether an optional argument of the query was given."""
    whole = isinstance(template, str) and template.startswith("{") and template.endswith("}")
    return not whole or template[1:-1] in arguments


def _path(url: str, arguments: Json) -> str:
    """Return the URL with each argument in it as one segment, whatever it holds."""
    pieces = []
    for literal, name, _, _ in Formatter().parse(url):
        pieces.append(literal)
        if name is not None:
            value = arguments[name]
            text = value if isinstance(value, str) else json.dumps(value)
            if text in {".", ".."}:
                raise ValueError(f"'{name}' can't be part of a path")
            pieces.append(quote(text, safe=""))
    return "".join(pieces)


async def _read(response: httpx2.Response, cap: int) -> bytes:
    """Return the body; raise a Fault as soon as it is larger than the cap, decompressed."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding not in {"identity", "gzip", "deflate"}:
        raise Fault(
            "bad_response", "The upstream's answer is encoded in a way that wasn't asked for."
        )
    unpacked = zlib.decompressobj(wbits=47) if encoding != "identity" else None
    body = bytearray()
    async for raw in response.aiter_raw():
        try:
            body += unpacked.decompress(raw, cap + 1 - len(body)) if unpacked else raw
        except zlib.error as fault:
            raise Fault("bad_response", "The upstream's answer can't be decompressed.") from fault
        if len(body) > cap:
            raise Fault("too_large", f"The upstream's answer has more than {cap} bytes.")
    return bytes(body)


def _broken(fault: httpx2.TransportError, ticket: Ticket) -> Fault:
    if isinstance(fault, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Fault("unavailable", "The upstream can't be reached.", "connect")
    if isinstance(fault, httpx2.TimeoutException):
        return Fault("timeout", "The upstream didn't answer in time.", "timeout", ticket.sent)
    return Fault("unavailable", "The connection to the upstream broke.", "reset", ticket.sent)


STATUSES: Mapping[int, tuple[Kind, str]] = {
    429: ("rate_limited", "The upstream is asked too often."),
    502: ("unavailable", "The upstream isn't available."),
    503: ("unavailable", "The upstream isn't available."),
    504: ("unavailable", "The upstream isn't available."),
}


def _result(response: httpx2.Response, body: bytes) -> Any:
    status = response.status_code
    if status in STATUSES:
        kind, message = STATUSES[status]
        after = retry_after(response.headers)
        raise Fault(kind, message, str(status), sent=True, retry_after=after, code=status)
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        message = f"The upstream failed with status {status}."
        raise Fault("upstream_error", message, str(status), sent=True, code=status)
    if status >= httpx2.codes.BAD_REQUEST:
        said = body.decode("utf-8", "replace")[:EXCERPT]
        raise Fault("upstream_rejected", f"The upstream refused with status {status}: {said}",
                    str(status), sent=True, code=status)  # fmt: skip
    if status >= httpx2.codes.MULTIPLE_CHOICES:
        raise Fault("blocked_egress", "The upstream redirects, which isn't followed.", str(status),
                    sent=True, code=status)  # fmt: skip
    return _value(response, body)


def _value(response: httpx2.Response, body: bytes) -> Any:
    if "json" not in response.headers.get("content-type", ""):
        return body.decode("utf-8", "replace")
    try:
        return parsed(body) if body else None
    except ValueError as fault:
        raise Fault("bad_response", "The upstream's answer isn't valid JSON.", sent=True) from fault


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an upstream asks to wait, None where it says nothing readable."""
    try:
        after = _asked_to_wait(headers)
    except (ValueError, OverflowError):
        return None
    return max(0.0, after) if math.isfinite(after) else None


def _asked_to_wait(headers: Mapping[str, str]) -> float:
    if "retry-after-ms" in headers:
        return float(headers["retry-after-ms"]) / 1000
    said = headers.get("retry-after", "")
    if said.isascii() and said.strip().isdigit():
        return float(said)
    return email.utils.parsedate_to_datetime(said).timestamp() - time.time()
