"""What every request meets first and last: its id, its span, and the handler of last resort."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus

import structlog
from opentelemetry.trace import INVALID_SPAN, Span, StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falsework.server.errors import (
    ClientDisconnected,
    InternalServerError,
    error_response,
)
from falsework.server.ids import new_id
from falsework.server.observability import (
    collect_warnings,
    request_span,
    telemetry,
    warning_headers,
)

REQUEST_ID_HEADER = "x-request-id"
WARNING_HEADER = "warning"
REQUEST_ID_PATTERN = re.compile(r"[\w.-]{1,128}", re.ASCII)

log = structlog.get_logger("falsework")

TRACED_PATHS = frozenset({"/v1/chat/completions", "/v1/messages", "/v1/responses"})


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
        warnings = collect_warnings()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _tell(scope, status, span)
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                for warning in warning_headers(warnings):
                    headers.append(WARNING_HEADER, warning)
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
                await error_response(refusal, scope["path"])(scope, receive, send_named)


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
