"""Secrets, from the environment or from files, on their way into a request and nowhere else."""

import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx2

from falsework.runtime.entries import Auth, BasicAuth, BearerAuth, ClientCredentials, HeaderAuth
from falsework.runtime.entries import Secret as Place
from falsework.runtime.faults import Fault
from falsework.runtime.toolsfile import BadToolsFile

EXPIRY_MARGIN = 30
"""A token this near its end, in seconds, is renewed before it is used."""


def secret(place: Place) -> str:
    """Return the secret at a place; raise BadToolsFile where there is none."""
    if place.env is not None:
        value = os.environ.get(place.env, "")
        if not value:
            raise BadToolsFile(
                f"the environment has no {place.env}, where a tool's secret should be"
            )
        return value
    assert place.file is not None, "a secret has a place"
    try:
        return Path(place.file).read_text("utf-8").strip()
    except OSError as fault:
        raise BadToolsFile(f"a tool's secret can't be read from {place.file}") from fault


class _Header(httpx2.Auth):
    def __init__(self, name: str, value: str) -> None:
        self._name = name
        self._value = value

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers[self._name] = self._value
        yield request


class _ClientToken(httpx2.Auth):
    """A token that is asked for when it is needed, once for all who wait for it."""

    requires_response_body = True

    def __init__(self, grant: ClientCredentials) -> None:
        self._grant = grant
        self._pair = (secret(grant.client_id), secret(grant.client_secret))
        self._token = ""
        self._until = 0.0
        self._lock = anyio.Lock()

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        async with self._lock:
            if time.monotonic() >= self._until:
                self._take((yield self._wanted()))
        request.headers["authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == httpx2.codes.UNAUTHORIZED:
            self._until = 0.0

    def _wanted(self) -> httpx2.Request:
        fields = {"grant_type": "client_credentials", "scope": " ".join(self._grant.scopes)}
        request = httpx2.Request("POST", self._grant.token_url, data=fields)
        signed: httpx2.Request = next(httpx2.BasicAuth(*self._pair).auth_flow(request))
        return signed

    def _take(self, response: httpx2.Response) -> None:
        if response.status_code != httpx2.codes.OK:
            raise Fault("unavailable", "The tool's credentials were not accepted.", "connect")
        said = response.json()
        self._token = said["access_token"]
        self._until = time.monotonic() + float(said.get("expires_in", 300)) - EXPIRY_MARGIN


def _bearer(auth: BearerAuth) -> httpx2.Auth:
    return _Header("authorization", f"Bearer {secret(auth.token)}")


def _header(auth: HeaderAuth) -> httpx2.Auth:
    return _Header(auth.name, secret(auth.value))


def _basic(auth: BasicAuth) -> httpx2.Auth:
    return httpx2.BasicAuth(secret(auth.user), secret(auth.password))


KINDS: Mapping[type[Any], Callable[[Any], httpx2.Auth]] = {
    BasicAuth: _basic,
    BearerAuth: _bearer,
    ClientCredentials: _ClientToken,
    HeaderAuth: _header,
}


def credentials(auth: Auth | None) -> httpx2.Auth | None:
    """Return what signs an upstream's requests; raise BadToolsFile where a secret is missing."""
    return KINDS[type(auth)](auth) if auth else None
