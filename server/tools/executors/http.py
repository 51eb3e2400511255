"""A tool that is one HTTP request."""

import json
from collections.abc import Mapping
from string import Formatter
from typing import Any
from urllib.parse import quote

import httpx2

from falsework.server.tools.config import HttpTool, render_template
from falsework.server.tools.deadline import DEADLINE_HEADER
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext, ToolDescription
from falsework.server.tools.executors.http_errors import status_error
from falsework.server.tools.validation import parse_json
from falsework.server.types import Json

BODILESS_METHODS = frozenset({"GET", "HEAD", "DELETE"})


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
        """Return an empty description: the tools file has everything."""
        return ToolDescription()

    async def execute(self, arguments: Json, attempt: AttemptContext) -> Any:
        """Return the response's JSON, or its text."""
        request = self._build_request(arguments, attempt)
        try:
            response = await self._client.send(request, stream=True)
            try:
                body = await response.aread()
            finally:
                await response.aclose()
        except httpx2.TransportError as error:
            raise _transport_error(error, attempt) from error
        return _parse_response(response, body)

    def _build_request(self, arguments: Json, attempt: AttemptContext) -> httpx2.Request:
        config = self._request

        async def trace(event: str, _: Mapping[str, Any]) -> None:
            attempt.sent |= event.endswith(".send_request_headers.started")

        try:
            url = httpx2.URL(_render_url(config.url, arguments))
            headers = _headers(config, arguments)
            return self._client.build_request(
                config.method,
                url,
                params=_query_params(config, arguments).merge(url.params) or None,
                headers={"accept-encoding": "gzip", **headers, **self._own_headers(attempt)},
                json=_body(config, arguments),
                extensions={"trace": trace},
            )
        except KeyError as error:
            raise ToolCallError("invalid_arguments", f"The argument {error} is missing.") from error
        except (ValueError, httpx2.InvalidURL) as error:
            message = "The arguments make no request that can be sent."
            raise ToolCallError("invalid_arguments", message) from error

    def _own_headers(self, attempt: AttemptContext) -> dict[str, str]:
        """Return the headers that no argument sets: time left, idempotency key, trace context."""
        milliseconds = max(0, int(attempt.deadline.remaining() * 1000))
        key = {self._key_header: attempt.key} if self._key_header and attempt.key else {}
        return {DEADLINE_HEADER: str(milliseconds), **key, **attempt.headers}


def _query_params(config: HttpTool, arguments: Json) -> httpx2.QueryParams:
    """Return the query; a parameter of the tools file wins over an argument of the same name."""
    unplaced = _unplaced_arguments(config, arguments) if config.method in BODILESS_METHODS else {}
    free = {key: value for key, value in unplaced.items() if key not in config.query}
    return httpx2.QueryParams({**free, **_render_given(config.query, arguments)})


def _headers(config: HttpTool, arguments: Json) -> dict[str, str]:
    headers = {}
    for name, value in _render_given(config.headers, arguments).items():
        headers[name] = text = _to_text(value)
        if not (text.isascii() and text.isprintable()):
            message = f"The header {name} can hold printable ASCII only."
            raise ToolCallError("invalid_arguments", message)
    return headers


def _body(config: HttpTool, arguments: Json) -> Any:
    if config.method in BODILESS_METHODS:
        return None
    if config.body is None:
        return _unplaced_arguments(config, arguments)
    return render_template(config.body, arguments) if _is_given(config.body, arguments) else None


def _unplaced_arguments(config: HttpTool, arguments: Json) -> Json:
    """Return the arguments that no placeholder names."""
    texts = [config.url, json.dumps([config.query, config.headers, config.body])]
    placeholders = {part.partition("}")[0] for text in texts for part in text.split("{")[1:]}
    return {key: value for key, value in arguments.items() if key not in placeholders}


def _render_given(templates: Mapping[str, Any], arguments: Json) -> Json:
    """Return rendered templates, without those whose only placeholder has no argument."""
    return {
        key: render_template(template, arguments)
        for key, template in templates.items()
        if _is_given(template, arguments)
    }


def _is_given(template: Any, arguments: Json) -> bool:
    """Return False for a template that is one placeholder whose argument is missing."""
    if not (isinstance(template, str) and template.startswith("{") and template.endswith("}")):
        return True
    return template[1:-1] in arguments


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _render_url(url: str, arguments: Json) -> str:
    """Return the URL with each argument escaped: in a path it is one segment, never empty."""
    parts = []
    for literal, name, _, _ in Formatter().parse(url):
        parts.append(literal)
        if name is not None:
            text = _to_text(arguments[name])
            in_path = not any("?" in part for part in parts)
            if in_path and text in {"", ".", ".."}:  # which would name another resource
                raise ToolCallError("invalid_arguments", f"'{name}' can't be part of a path.")
            parts.append(quote(text, safe=""))
    return "".join(parts)


def _transport_error(error: httpx2.TransportError, attempt: AttemptContext) -> ToolCallError:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return ToolCallError("unavailable", "The upstream can't be reached.", "connect")
    if isinstance(error, httpx2.TimeoutException):
        return ToolCallError(
            "timeout", "The upstream didn't answer in time.", "timeout", attempt.sent
        )
    return ToolCallError(
        "unavailable", "The connection to the upstream broke.", "reset", attempt.sent
    )


def _parse_response(response: httpx2.Response, body: bytes) -> Any:
    if response.status_code >= httpx2.codes.MULTIPLE_CHOICES:
        excerpt = body.decode("utf-8", "replace")
        raise status_error(response.status_code, response.headers, excerpt)
    return _parse_body(response, body)


def _parse_body(response: httpx2.Response, body: bytes) -> Any:
    if "json" not in response.headers.get("content-type", ""):
        return body.decode("utf-8", "replace")
    try:
        return parse_json(body) if body else None
    except ValueError as error:
        raise ToolCallError(
            "bad_response", "The upstream's answer isn't valid JSON.", sent=True
        ) from error
