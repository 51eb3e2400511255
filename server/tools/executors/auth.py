"""Secrets, from the environment or from files, on their way into a request and nowhere else."""

import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx2

from falsework.server.tools.config.loader import ToolsFileError
from falsework.server.tools.config.schema import (
    Auth,
    BasicAuth,
    BearerAuth,
    ClientCredentials,
    HeaderAuth,
)
from falsework.server.tools.config.schema import SecretRef as Place
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.validation import parse_json

AUTH_REJECTED_MESSAGE = "The tool's credentials were not accepted."
EXPIRY_MARGIN = 30
"""A token this near its end, in seconds, is renewed before it is used."""


def read_secret(place: Place) -> str:
    """Return the secret at a place; raise BadToolsFile where there is none."""
    if place.env is not None:
        value = os.environ.get(place.env, "")
        if not value:
            raise ToolsFileError(
                f"the environment has no {place.env}, where a tool's secret should be"
            )
        return value
    assert place.file is not None, "a secret has a place"
    try:
        return Path(place.file).read_text("utf-8").strip()
    except OSError as fault:
        raise ToolsFileError(f"a tool's secret can't be read from {place.file}") from fault


class _Header(httpx2.Auth):
    def __init__(self, name: str, value: str) -> None:
        self._name = name
        try:
            self._value = _sendable(value)
        except ValueError as fault:
            raise ToolsFileError(f"the secret for the header {name} {fault}") from fault

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers[self._name] = self._value
        yield request


class _ClientToken(httpx2.Auth):
    """A token that is asked for when it is needed, once for all who wait for it."""

    def __init__(self, grant: ClientCredentials) -> None:
        self._grant = grant
        self._pair = (read_secret(grant.client_id), read_secret(grant.client_secret))
        self._token = ""
        self._until = 0.0
        self._lock = anyio.Lock()

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        refused = ""
        for _ in range(2):
            async with self._lock:
                if self._token == refused or time.monotonic() >= self._until:
                    self._take(await _read((yield self._wanted(request))))
            refused = self._token
            request.headers["authorization"] = f"Bearer {refused}"
            response = yield request
            if response.status_code != httpx2.codes.UNAUTHORIZED:
                return

    def _wanted(self, beside: httpx2.Request) -> httpx2.Request:
        fields = {"grant_type": "client_credentials"}
        if self._grant.scopes:
            fields["scope"] = " ".join(self._grant.scopes)
        extensions = {"timeout": beside.extensions.get("timeout", {})}
        request = httpx2.Request("POST", self._grant.token_url, data=fields, extensions=extensions)
        signed: httpx2.Request = next(httpx2.BasicAuth(*self._pair).auth_flow(request))
        return signed

    def _take(self, body: bytes) -> None:
        try:
            said = parse_json(body)
            token, lasts = _sendable(said["access_token"]), float(said.get("expires_in", 300))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ToolCallError(
                "upstream_rejected", AUTH_REJECTED_MESSAGE
            ) from None  # its cause may tell the token
        self._token = token
        self._until = time.monotonic() + (lasts if math.isfinite(lasts) else 0) - EXPIRY_MARGIN


async def _read(response: httpx2.Response) -> bytes:
    """Return what the token's giver says; raise a Fault where that is no."""
    status = response.status_code
    if status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        message = "The tool's credentials can't be had at the moment."
        raise ToolCallError("unavailable", message, "connect", code=status)
    if status != httpx2.codes.OK:
        raise ToolCallError("upstream_rejected", AUTH_REJECTED_MESSAGE, code=status)
    return await response.aread()


def _sendable(value: str) -> str:
    """Return a header's value; raise ValueError where no header can hold it."""
    if not (value.isascii() and value.isprintable()):
        raise ValueError("should be printable ASCII")
    return value


def _bearer(auth: BearerAuth) -> httpx2.Auth:
    return _Header("authorization", f"Bearer {read_secret(auth.token)}")


def _header(auth: HeaderAuth) -> httpx2.Auth:
    return _Header(auth.name, read_secret(auth.value))


def _basic(auth: BasicAuth) -> httpx2.Auth:
    return httpx2.BasicAuth(read_secret(auth.user), read_secret(auth.password))


AUTH_BUILDERS: Mapping[type[Any], Callable[[Any], httpx2.Auth]] = {
    BasicAuth: _basic,
    BearerAuth: _bearer,
    ClientCredentials: _ClientToken,
    HeaderAuth: _header,
}


def build_auth(auth: Auth | None) -> httpx2.Auth | None:
    """Return what signs an upstream's requests; raise BadToolsFile where a secret is missing."""
    return AUTH_BUILDERS[type(auth)](auth) if auth else None
