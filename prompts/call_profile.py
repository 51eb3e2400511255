"""How readily models call tools, as measured: biases on the log odds of their calls."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CallProfile:
    """Biases on the decisions between a call and none; 0 leaves them to the model.

    `tool_call_bias` is on calls where a reply begins, `after_result_bias` instead of it where the
    conversation ends with a tool's result, `another_call_bias` on another call behind a call.
    """

    tool_call_bias: float = 0.0
    after_result_bias: float = 0.0
    another_call_bias: float = 0.0


CALL_PROFILES: Mapping[str, CallProfile] = {
    # The log odds of SmolLM2-135M: a call -5.6 to -2.4 where one fits and -6.5 to -2.7 where none
    # does; -1.3 to -0.8 behind every result; another call 2.0 to 2.8, whether one is wanted or not.
    "smollm2": CallProfile(4.5, -9.0, -12.0),
    # Models whose template knows no tools weren't trained to stop calling them.
    "scaffold": CallProfile(another_call_bias=-6.0),
}
"""By the name of a built-in model, or else by dialect; all others leave it to the model."""


def call_profile(dialect: str, model: str = "") -> CallProfile:
    """Return the profile of a model, or of its dialect."""
    return CALL_PROFILES.get(model) or CALL_PROFILES.get(dialect) or CallProfile()
