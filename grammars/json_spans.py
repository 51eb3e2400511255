"""Where a value stands in the JSON text that holds it."""

import json
from collections.abc import Sequence

_DECODER = json.JSONDecoder()


def value_span(text: str, path: Sequence[str | int]) -> tuple[int, int]:
    """Return the range of characters of the value at `path`; raise KeyError for none.

    Of a member that comes twice, the last counts, as for whoever parses the text.
    """
    start = _skip(text, 0)
    for step in path:
        start = _member(text, start, step)
    return start, _end(text, start)


def _member(text: str, start: int, step: str | int) -> int:
    """Return where a member of the object, or an item of the array, at `start` begins."""
    found, at, position = None, _skip(text, start + 1), 0
    while text[at] not in "}]":
        key: str | int = position
        if text[start] == "{":
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # behind the colon
        if key == step:
            found = at
        at = _skip(text, _end(text, at))
        at = _skip(text, at + 1) if text[at] == "," else at
        position += 1
    if found is None:
        raise KeyError(step)
    return found


def _end(text: str, start: int) -> int:
    return _DECODER.raw_decode(text, start)[1]


def _skip(text: str, at: int) -> int:
    """Return the position of the next character that is no blank."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
