"""What happens to every request before and after it is answered: a name, a key, a last resort."""

import hmac
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus

import structlog
from fastapi import Request
from opentelemetry.trace import INVALID_SPAN, Span, StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falsework.server.api.chat.objects import new_id
from falsework.server.errors import (
    APIError,
    AuthenticationError,
    ClientDisconnected,
    InternalServerError,
    PayloadTooLarge,
)
from falsework.server.http.sse import error_body
from falsework.server.observability import telemetry
from falsework.server.observability.tracing import request_span

REQUEST_ID_HEADER = "x-request-id"
REQUEST_ID_PATTERN = re.compile(r"[\w.-]{1,128}", re.ASCII)

log = structlog.get_logger("falsework")

TRACED_PATHS = frozenset({"/v1/chat/completions", "/v1/responses"})


class RequestContextMiddleware:
    """Gives every reply its request id, and turns what nobody expected into an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _tell(scope, status, span)
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        with _span(scope) as span:
            try:
                await self._app(scope, receive, send_named)
            except Exception:
                # The outermost handler of all.
                log.exception(telemetry.FAILED_LINE)
                span.set_status(StatusCode.ERROR)
                if status:
                    raise
                refusal = InternalServerError(
                    "The server failed. The fault is its own, and it is logged."
                )
                await error_response(refusal)(scope, receive, send_named)


def _span(scope: Scope) -> AbstractContextManager[Span]:
    """Return the span of a request that is worth one."""
    if scope["method"] != "POST" or scope["path"] not in TRACED_PATHS:
        return nullcontext(INVALID_SPAN)
    return request_span(scope["path"], dict(Headers(scope=scope)))


def _tell(scope: Scope, status: int, span: Span) -> None:
    """Count a request by its route, and log it where it was refused."""
    route = getattr(scope.get("route"), "path", telemetry.OTHER)
    telemetry.HTTP_REQUESTS.labels(route, status).inc()
    span.set_attribute(telemetry.STATUS_CODE, status)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.set_status(StatusCode.ERROR)
    if status >= HTTPStatus.BAD_REQUEST and status != ClientDisconnected.status:
        log.info(telemetry.LOG_REFUSED, route=route, status=status)


def _request_id(headers: Mapping[str, str]) -> str:
    asked = headers.get(REQUEST_ID_HEADER, "")
    return asked if REQUEST_ID_PATTERN.fullmatch(asked) else new_id("req_")


def error_response(refusal: APIError) -> JSONResponse:
    """Return a refusal as a response."""
    return JSONResponse(error_body(refusal), refusal.status, headers=dict(refusal.headers))


class APIKeyAuth:
    """Lets in who bears one of the keys; without keys, everybody."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    async def __call__(self, request: Request) -> None:
        """Refuse a request without a right key."""
        if not self._keys:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        borne = key.strip().encode()
        # Every key is compared, so that the time taken doesn't tell which was nearly right.
        matches = [hmac.compare_digest(borne, each) for each in self._keys]
        if scheme.lower() != "bearer" or not any(matches):
            what = "Incorrect API key provided." if key else "You didn't provide an API key."
            raise AuthenticationError(f"{what} Send it as 'Authorization: Bearer KEY'.")


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
