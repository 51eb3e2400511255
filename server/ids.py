"""Identifiers of what the server makes: replies, calls, runs, requests."""

import secrets
import string

ID_ALPHABET = string.ascii_letters + string.digits
ID_LENGTH = 24
"""Characters behind the prefix of an identifier."""

SESSION_LENGTH = 8
"""How many of them name a session, in the id of a response that belongs to one."""


def new_id(prefix: str, session: str = "") -> str:
    """Return an identifier that nothing else has; it begins with its session, if it has one."""
    count = ID_LENGTH - len(session)
    return prefix + session + "".join(secrets.choice(ID_ALPHABET) for _ in range(count))
