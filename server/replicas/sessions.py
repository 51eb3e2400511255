"""Which session a request belongs to: all its turns go to the replica that has their prefix."""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

from falsework.server.ids import SESSION_LENGTH

SESSION_HEADER = "x-session-id"
"""What Ray Serve's router hashes, and what replicas put into the ids of responses."""

RESPONSE_ID = re.compile(rf"resp_([0-9A-Za-z]{{{SESSION_LENGTH}}})")
RESPONSE_PATH = re.compile(rf"/v1/responses/{RESPONSE_ID.pattern}")


def session_of(path: str, named: str, body: bytes) -> str:
    """Return the session of a request, a few characters; "" where nothing tells it.

    A response's id begins with its session, so that a turn that names the one before and a request
    for a response itself go where that one was made. Otherwise it is what the client calls it:
    `prompt_cache_key`, `conversation`, or the header (`named`); or else how the conversation
    opens, which every turn of it repeats.
    """
    if found := RESPONSE_PATH.match(path):
        return found[1]
    fields = _object(body)
    known = fields.get("prompt_cache_key") or _id_of(fields.get("conversation"))
    if isinstance(known, str) and known:
        return _digest(known)
    previous = fields.get("previous_response_id")
    if isinstance(previous, str) and (found := RESPONSE_ID.match(previous)):
        return found[1]
    if named:
        return _digest(named)
    opening = _opening(fields)
    return _digest(opening) if any(opening) else ""


def _object(body: bytes) -> dict[str, Any]:
    """Return a body's fields; what is no JSON object is the replica's to refuse."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _id_of(conversation: Any) -> Any:
    return conversation.get("id") if isinstance(conversation, dict) else conversation


def _opening(fields: dict[str, Any]) -> list[Any]:
    """Return instructions, tools, and what was said up to the first words of the user."""
    said = fields.get("messages") or fields.get("input")
    first = _until_user(said) if isinstance(said, list) else said
    return [fields.get("instructions"), fields.get("tools"), first]


def _until_user(said: Iterable[Any]) -> list[Any]:
    opening = []
    for each in said:
        opening.append(each)
        if isinstance(each, dict) and each.get("role") == "user":
            break
    return opening


def _digest(of: Any) -> str:
    text = json.dumps(of, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:SESSION_LENGTH]
