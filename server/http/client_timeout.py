"""How long a client waits for its reply, as far as it says so."""

import math
from collections.abc import Mapping

from falsework.server.tools.deadline import DEADLINE_HEADER

SDK_TIMEOUT_HEADER = "x-stainless-read-timeout"
"""Sent by OpenAI's SDKs, in seconds."""

SDK_MARGIN = 1.0
"""So much earlier we answer, at most a tenth, so that the SDK doesn't give up and ask again."""


def client_timeout(headers: Mapping[str, str], *, alone: bool = False) -> float:
    """Return the seconds that a request has; infinity where it doesn't say.

    `alone`: nobody waits for it, however long an SDK would.
    """
    sdk = math.inf if alone else _number(headers.get(SDK_TIMEOUT_HEADER))
    return min(_number(headers.get(DEADLINE_HEADER)) / 1000, max(sdk - SDK_MARGIN, 0.9 * sdk))


def _number(said: str | None) -> float:
    try:
        number = float(said or "")
    except ValueError:
        return math.inf
    return number if number > 0 else math.inf
