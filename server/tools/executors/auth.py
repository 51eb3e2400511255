"""Authentication at upstreams, with secrets from the environment or from files."""

import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx2

from falsework.server.tools.config import (
    Auth,
    BasicAuth,
    BearerAuth,
    ClientCredentials,
    HeaderAuth,
    SecretRef,
    ToolsFileError,
)
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.redaction import Redactor
from falsework.server.tools.validation import parse_json

AUTH_REJECTED_MESSAGE = "The tool's credentials were not accepted."
EXPIRY_MARGIN = 30
"""Seconds before its expiry from which a token is renewed."""

DEFAULT_LIFETIME = 300
"""Seconds that a token without `expires_in` is used."""


def read_secret(ref: SecretRef) -> str:
    """Return a secret; raise ToolsFileError where it is missing."""
    if ref.env is not None:
        value = os.environ.get(ref.env, "")
        if not value:
            raise ToolsFileError(
                f"the environment has no {ref.env}, where a tool's secret should be"
            )
        return value
    assert ref.file is not None, "a reference has one source"
    try:
        return Path(ref.file).read_text("utf-8").strip()
    except OSError as error:
        raise ToolsFileError(f"a tool's secret can't be read from {ref.file}") from error


class _Header(httpx2.Auth):
    def __init__(self, name: str, value: str) -> None:
        self._name = name
        try:
            self._value = _check_header_value(value)
        except ValueError as error:
            raise ToolsFileError(f"the secret for the header {name} {error}") from error

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers[self._name] = self._value
        yield request


class _ClientToken(httpx2.Auth):
    """Client credentials grant: the token is requested when needed, once for all waiting calls."""

    def __init__(self, config: ClientCredentials, redactor: Redactor) -> None:
        self._config = config
        self._pair = (read_secret(config.client_id), read_secret(config.client_secret))
        self._redactor = redactor
        redactor.add_pair(*self._pair)
        self._token = ""
        self._expires_at = 0.0
        self._lock = anyio.Lock()

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        rejected = ""
        for _ in range(2):
            async with self._lock:
                if self._token == rejected or time.monotonic() >= self._expires_at:
                    response = yield self._token_request(request)
                    self._store_token(await _read_token_response(response))
            rejected = self._token
            request.headers["authorization"] = f"Bearer {rejected}"
            response = yield request
            if response.status_code != httpx2.codes.UNAUTHORIZED:
                return

    def _token_request(self, for_request: httpx2.Request) -> httpx2.Request:
        fields = {"grant_type": "client_credentials"}
        if self._config.scopes:
            fields["scope"] = " ".join(self._config.scopes)
        extensions = {"timeout": for_request.extensions.get("timeout", {})}
        request = httpx2.Request("POST", self._config.token_url, data=fields, extensions=extensions)
        authenticated: httpx2.Request = next(httpx2.BasicAuth(*self._pair).auth_flow(request))
        return authenticated

    def _store_token(self, body: bytes) -> None:
        try:
            grant = parse_json(body)
            token = _check_header_value(grant["access_token"])
            lifetime = float(grant.get("expires_in", DEFAULT_LIFETIME))
        except (AttributeError, KeyError, TypeError, ValueError):
            # The cause is dropped: its text may hold the token.
            raise ToolCallError("upstream_rejected", AUTH_REJECTED_MESSAGE) from None
        self._token = token
        self._redactor.add_token(token)
        lifetime = lifetime if math.isfinite(lifetime) else 0.0
        self._expires_at = time.monotonic() + lifetime - EXPIRY_MARGIN


async def _read_token_response(response: httpx2.Response) -> bytes:
    """Return the body of a token response; raise a ToolCallError for an error status."""
    status = response.status_code
    if status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        message = "The tool's credentials can't be had at the moment."
        raise ToolCallError("unavailable", message, "connect", code=status)
    if status != httpx2.codes.OK:
        raise ToolCallError("upstream_rejected", AUTH_REJECTED_MESSAGE, code=status)
    return await response.aread()


def _check_header_value(value: str) -> str:
    """Return a header value; raise ValueError where it isn't printable ASCII."""
    if not (value.isascii() and value.isprintable()):
        raise ValueError("should be printable ASCII")
    return value


def _bearer(auth: BearerAuth, redactor: Redactor) -> httpx2.Auth:
    token = read_secret(auth.token)
    redactor.add(token)
    return _Header("authorization", f"Bearer {token}")


def _header(auth: HeaderAuth, redactor: Redactor) -> httpx2.Auth:
    value = read_secret(auth.value)
    redactor.add(value)
    return _Header(auth.name, value)


def _basic(auth: BasicAuth, redactor: Redactor) -> httpx2.Auth:
    user, password = read_secret(auth.user), read_secret(auth.password)
    redactor.add_pair(user, password)
    return httpx2.BasicAuth(user, password)


AUTH_BUILDERS: Mapping[type[Any], Callable[[Any, Redactor], httpx2.Auth]] = {
    BasicAuth: _basic,
    BearerAuth: _bearer,
    ClientCredentials: _ClientToken,
    HeaderAuth: _header,
}


def build_auth(auth: Auth | None, redactor: Redactor) -> httpx2.Auth | None:
    """Return the authentication of an upstream; raise ToolsFileError where a secret is missing.

    The secrets are added to the redactor.
    """
    return AUTH_BUILDERS[type(auth)](auth, redactor) if auth else None
