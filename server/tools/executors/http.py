"""A tool that is one HTTP request."""

import email.utils
import json
import math
import time
from collections.abc import Mapping
from string import Formatter
from typing import Any
from urllib.parse import quote

import httpx2

from falsework.server.tools.config.expressions import render_template
from falsework.server.tools.config.schema import HttpTool
from falsework.server.tools.errors import ErrorType, ToolCallError
from falsework.server.tools.executors.base import AttemptContext, Json, ToolDescription
from falsework.server.tools.validation import parse_json

BODILESS_METHODS = frozenset({"GET", "HEAD", "DELETE"})
DEADLINE_HEADER = "x-request-deadline-ms"
EXCERPT_CHARS = 500
"""Characters of an upstream's refusal that the model is told."""


class HttpExecutor:
    """Sends one request per attempt."""

    def __init__(
        self, request: HttpTool, client: httpx2.AsyncClient, key_header: str | None
    ) -> None:
        self._request = request
        self._client = client
        self._key_header = key_header
        url = httpx2.URL(request.url.replace("{", "").replace("}", ""))
        self.upstream = f"{url.scheme}://{url.netloc.decode()}"

    async def describe(self) -> ToolDescription:
        """Return nothing: the tools file says everything."""
        return ToolDescription()

    async def execute(self, arguments: Json, ticket: AttemptContext) -> Any:
        """Return the response's JSON, or its text."""
        request = self._built(arguments, ticket)
        try:
            response = await self._client.send(request, stream=True)
            try:
                body = await response.aread()
            finally:
                await response.aclose()
        except httpx2.TransportError as fault:
            raise _broken(fault, ticket) from fault
        return _result(response, body)

    def _built(self, arguments: Json, ticket: AttemptContext) -> httpx2.Request:
        asked = self._request
        left = {DEADLINE_HEADER: str(max(0, int(ticket.deadline.remaining() * 1000)))}
        key = {self._key_header: ticket.key} if self._key_header and ticket.key else {}

        async def noticed(event: str, _: Mapping[str, Any]) -> None:
            ticket.sent |= event.endswith(".send_request_headers.started")

        try:
            url = httpx2.URL(_path(asked.url, arguments))
            headers = _headers(asked, arguments)
            return self._client.build_request(
                asked.method,
                url,
                params=_query(asked, arguments).merge(url.params) or None,
                headers={"accept-encoding": "gzip", **headers, **left, **key, **ticket.headers},
                json=_body(asked, arguments),
                extensions={"trace": noticed},
            )
        except KeyError as fault:
            raise ToolCallError("invalid_arguments", f"The argument {fault} is missing.") from fault
        except (ValueError, httpx2.InvalidURL) as fault:
            message = "The arguments make no request that can be sent."
            raise ToolCallError("invalid_arguments", message) from fault


def _query(asked: HttpTool, arguments: Json) -> httpx2.QueryParams:
    """Return the query, in which what the operator names isn't another argument's."""
    rest = _rest(asked, arguments) if asked.method in BODILESS_METHODS else {}
    free = {key: value for key, value in rest.items() if key not in asked.query}
    return httpx2.QueryParams({**free, **_filled(asked.query, arguments)})


def _headers(asked: HttpTool, arguments: Json) -> dict[str, str]:
    headers = {}
    for name, value in _filled(asked.headers, arguments).items():
        headers[name] = text = _text(value)
        if not (text.isascii() and text.isprintable()):
            message = f"The header {name} can hold printable ASCII only."
            raise ToolCallError("invalid_arguments", message)
    return headers


def _body(asked: HttpTool, arguments: Json) -> Any:
    if asked.method in BODILESS_METHODS:
        return None
    if asked.body is None:
        return _rest(asked, arguments)
    return render_template(asked.body, arguments) if _given(asked.body, arguments) else None


def _rest(asked: HttpTool, arguments: Json) -> Json:
    """Return the arguments that no place names."""
    texts = [asked.url, json.dumps([asked.query, asked.headers, asked.body])]
    places = {piece.partition("}")[0] for text in texts for piece in text.split("{")[1:]}
    return {key: value for key, value in arguments.items() if key not in places}


def _filled(templates: Mapping[str, Any], arguments: Json) -> Json:
    """Return templates filled, without those of optional arguments that weren't given."""
    return {
        key: render_template(value, arguments) for key, value in templates.items()
        if _given(value, arguments)
    }  # fmt: skip


def _given(template: Any, arguments: Json) -> bool:
    """Tell whether what is one placeholder and nothing else has its argument."""
    whole = isinstance(template, str) and template.startswith("{") and template.endswith("}")
    return not whole or template[1:-1] in arguments


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _path(url: str, arguments: Json) -> str:
    """Return the URL with each argument in it as one segment, whatever it holds."""
    pieces = []
    for literal, name, _, _ in Formatter().parse(url):
        pieces.append(literal)
        if name is not None:
            text = _text(arguments[name])
            if text in {".", ".."}:
                raise ToolCallError("invalid_arguments", f"'{name}' can't be part of a path.")
            pieces.append(quote(text, safe=""))
    return "".join(pieces)


def _broken(fault: httpx2.TransportError, ticket: AttemptContext) -> ToolCallError:
    if isinstance(fault, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return ToolCallError("unavailable", "The upstream can't be reached.", "connect")
    if isinstance(fault, httpx2.TimeoutException):
        return ToolCallError(
            "timeout", "The upstream didn't answer in time.", "timeout", ticket.sent
        )
    return ToolCallError(
        "unavailable", "The connection to the upstream broke.", "reset", ticket.sent
    )


STATUS_ERRORS: Mapping[int, tuple[ErrorType, str]] = {
    429: ("rate_limited", "The upstream is asked too often."),
    502: ("unavailable", "The upstream isn't available."),
    503: ("unavailable", "The upstream isn't available."),
    504: ("unavailable", "The upstream isn't available."),
}


def _result(response: httpx2.Response, body: bytes) -> Any:
    status = response.status_code
    if status in STATUS_ERRORS:
        kind, message = STATUS_ERRORS[status]
        after = retry_after(response.headers)
        raise ToolCallError(kind, message, str(status), sent=True, retry_after=after, code=status)
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        message = f"The upstream failed with status {status}."
        raise ToolCallError("upstream_error", message, str(status), sent=True, code=status)
    if status >= httpx2.codes.BAD_REQUEST:
        said = body.decode("utf-8", "replace")[:EXCERPT_CHARS]
        raise ToolCallError(
            "upstream_rejected",
            f"The upstream refused with status {status}: {said}",
            str(status),
            sent=True,
            code=status,
        )
    if status >= httpx2.codes.MULTIPLE_CHOICES:
        raise ToolCallError(
            "blocked_egress",
            "The upstream redirects, which isn't followed.",
            str(status),
            sent=True,
            code=status,
        )
    return _value(response, body)


def _value(response: httpx2.Response, body: bytes) -> Any:
    if "json" not in response.headers.get("content-type", ""):
        return body.decode("utf-8", "replace")
    try:
        return parse_json(body) if body else None
    except ValueError as fault:
        raise ToolCallError(
            "bad_response", "The upstream's answer isn't valid JSON.", sent=True
        ) from fault


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
