"""Identifiers of what the server makes: replies, calls, runs, requests."""

import secrets
import string

ID_ALPHABET = string.ascii_letters + string.digits
ID_LENGTH = 24
"""Random characters behind the prefix of an identifier."""


def new_id(prefix: str) -> str:
    """Return an identifier that nothing else has."""
    return prefix + "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))
