"""Who sends a request: API keys, and the name that data is kept under."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from falsework.server.errors import AuthenticationError

PRINCIPAL_LENGTH = 32


class APIKeyAuth:
    """Requires one of the keys as bearer token; without keys, everybody may ask."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    async def __call__(self, request: HTTPConnection) -> None:
        """Raise AuthenticationError where the key is missing or wrong."""
        if not self._keys:
            return
        scheme, key = _credentials(request)
        given = key.encode()
        # Every key is compared, so that the time taken doesn't tell which was nearly right.
        matches = [hmac.compare_digest(given, known) for known in self._keys]
        if scheme != "Bearer" or not any(matches):
            what = "Incorrect API key provided." if key else "You didn't provide an API key."
            raise AuthenticationError(f"{what} Send it as 'Authorization: Bearer KEY'.")


def principal(request: HTTPConnection) -> str:
    """Return the digest of a request's credentials, which owns what it stores; "" without any."""
    scheme, key = _credentials(request)
    digest = hashlib.sha256(f"{scheme} {key}".encode()).hexdigest()
    return digest[:PRINCIPAL_LENGTH] if scheme else ""


def _credentials(request: HTTPConnection) -> tuple[str, str]:
    """Return scheme and key of the Authorization header, or of `x-api-key` in its place."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if not scheme and (key := request.headers.get("x-api-key", "")):
        scheme = "Bearer"  # one key, whichever header a client sends it in
    return scheme.capitalize(), key.strip()
