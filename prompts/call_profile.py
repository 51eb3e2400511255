"""How readily models of a family call tools, as measured: biases on their log odds."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CallProfile:
    """Biases on the decisions between a call and none; 0 leaves them to the model.

    `tool_call_bias` is on calls where a reply begins, `another_call_bias` on more behind a call.
    """

    tool_call_bias: float = 0.0
    another_call_bias: float = 0.0


CALL_PROFILES: Mapping[str, CallProfile] = {
    # Models that weren't trained to call tools don't know when to stop.
    "scaffold": CallProfile(another_call_bias=-3.0),
}
"""Profiles by dialect; all others leave it to the model."""


def call_profile(dialect: str) -> CallProfile:
    """Return the profile of a dialect."""
    return CALL_PROFILES.get(dialect, CallProfile())
