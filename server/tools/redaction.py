"""Redaction: an operator's secrets never stand in results, errors or logs, in any common encoding.

Upstreams echo credentials: in an error page, in a dump of the request's headers, encoded or not.
"""

import base64
import html
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from falsework.server.tools.errors import ToolCallError

MASK = "[redacted]"

MIN_SECRET_CHARS = 4
"""Shorter secrets aren't redacted: their text stands in everything."""

MIN_IDENTIFIER_CHARS = 6
"""The same for user names, client ids and environment variables, which are often words."""

_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def _unescape_unicode(text: str) -> str:
    return _UNICODE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


DECODERS: tuple[Callable[[str], str], ...] = (
    unquote,
    unquote_plus,
    html.unescape,
    _unescape_unicode,
)
"""Decoders of encodings in which any character may or may not be escaped."""

MAX_NESTED_ENCODINGS = 3

EXCERPT_CHARS = 500
"""Characters of an upstream's refusal that the model reads."""

MAX_TOKENS = 16
"""Access tokens that are redacted, the last ones: they expire."""


class Redactor:
    """Replaces the secrets of the tools file, and tokens that they were exchanged for."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._tokens: deque[str] = deque(maxlen=MAX_TOKENS)
        self._spellings: tuple[str, ...] = ()

    def add(self, secret: str, *, minimum: int = MIN_SECRET_CHARS) -> None:
        """Redact a secret of at least so many characters from now on."""
        if len(secret) >= minimum:
            self._secrets.add(secret)
            self._update()

    def add_token(self, token: str) -> None:
        """Redact an access token that a secret was exchanged for."""
        if len(token) >= MIN_SECRET_CHARS:
            self._tokens.append(token)
            self._update()

    def add_pair(self, user: str, password: str) -> None:
        """Redact the user and the password of basic authentication, together and apart."""
        pair = f"{user}:{password}"
        self.add(pair)
        self.add(base64.b64encode(pair.encode()).decode())  # as the header has it
        self.add(password)
        self.add(user, minimum=MIN_IDENTIFIER_CHARS)

    def redact_text(self, text: str) -> str:
        """Return a text without secrets."""
        if not self._spellings:
            return text
        text = self._replace(text)
        for decode in DECODERS:
            decoded = text
            for _ in range(MAX_NESTED_ENCODINGS):
                encoded, decoded = decoded, decode(decoded)
                if decoded == encoded:
                    break
                if (redacted := self._replace(decoded)) != decoded:
                    text = decoded = redacted  # the rest of the text is decoded, too
        return text

    def redact(self, value: Any) -> Any:
        """Return a JSON value without secrets, in keys and numbers either."""
        if not self._spellings:
            return value
        text = json.dumps(value, ensure_ascii=False)
        return value if self.redact_text(text) == text else self._redact(value)

    def redact_error(self, error: ToolCallError) -> ToolCallError:
        """Redact an error in place, and return it; the upstream's text is cut only then."""
        excerpt, error.excerpt = self.redact_text(error.excerpt)[:EXCERPT_CHARS], ""
        error.message = self.redact_text(error.message) + excerpt
        error.details = tuple(self.redact([dict(details) for details in error.details]))
        return error

    def _update(self) -> None:
        secrets = {*self._secrets, *self._tokens}
        spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
        self._spellings = tuple(sorted(spellings, key=len, reverse=True))

    def _redact(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.redact_text(key): self._redact(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._redact(item) for item in value]
        if isinstance(value, str):
            return self.redact_text(value)
        is_secret = value is not None and MASK in self.redact_text(json.dumps(value))
        return MASK if is_secret else value

    def _replace(self, text: str) -> str:
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, MASK)
        return text


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and in encodings that leave only one way to write it."""
    raw = secret.encode()
    yield secret
    yield from (json.dumps(secret)[1:-1], json.dumps(json.dumps(secret)[1:-1])[1:-1])
    yield from (json.dumps(secret, ensure_ascii=False)[1:-1], html.escape(secret))
    yield from (quote(secret, safe=""), quote_plus(secret))
    yield from (raw.hex(), raw.hex().upper())
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for text in _base64_spellings(raw, encode):
            yield text
            yield quote(text, safe="")


def _base64_spellings(raw: bytes, encode: Callable[[bytes], bytes]) -> Iterator[str]:
    """Yield the base64 text of a secret, and what all longer texts with it inside have in common.

    Base64 writes three bytes as four characters, so a secret has a spelling for each of three
    offsets, without the characters that hold bits of its neighbours.
    """
    yield encode(raw).decode().rstrip("=")
    for offset in range(3):
        text = encode(b"\0" * offset + raw).decode().rstrip("=")
        first = 0 if offset == 0 else offset + 1
        last = len(text) if (offset + len(raw)) % 3 == 0 else len(text) - 1
        if last - first >= MIN_IDENTIFIER_CHARS:
            yield text[first:last]
