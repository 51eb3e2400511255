"""What a request carries into the engine's process beside vLLM's own sampling parameters.

vLLM sends `SamplingParams.extra_args` as MessagePack, which keeps mappings, lists, text and bytes
but no types; both sides use the types of this file.
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from pydantic import TypeAdapter

from falsework.server.engines.base import Constraint, SamplingParams

CONSTRAINT_ARG = "falsework_constraint"
BIASES_ARG = "falsework_biases"


@dataclass(frozen=True)
class Biases:
    """Changes to the logits that vLLM refuses beside drafts, see `logits_processors`."""

    min_p: float
    logit_bias: dict[int, float]


class HasExtraArgs(Protocol):
    """vLLM's SamplingParams, as far as this file needs them."""

    extra_args: dict[str, Any] | None


_CONSTRAINT = TypeAdapter(Constraint)
_BIASES = TypeAdapter(Biases)


def to_extra_args(sampling: SamplingParams, constraint: Constraint | None) -> dict[str, Any] | None:
    """Return the extra_args of a request; None where it needs none."""
    extra: dict[str, Any] = {}
    if constraint:
        extra[CONSTRAINT_ARG] = asdict(constraint)
    if sampling.min_p or sampling.logit_bias:
        biases = Biases(sampling.min_p, sampling.logit_bias or {})
        extra[BIASES_ARG] = asdict(biases)
    return extra or None


def has_constraint(params: HasExtraArgs | None) -> bool:
    """Tell whether a request carries a constraint."""
    return CONSTRAINT_ARG in _extra_args(params)


def has_biases(params: HasExtraArgs | None) -> bool:
    """Tell whether a request carries biases."""
    return BIASES_ARG in _extra_args(params)


def take_constraint(params: HasExtraArgs) -> Constraint:
    """Remove the constraint from a request and return it; raise ValueError where it is none.

    It may have megabytes, and what stays in extra_args is sent on to every worker.
    """
    return _CONSTRAINT.validate_python((params.extra_args or {}).pop(CONSTRAINT_ARG))


def read_biases(params: HasExtraArgs) -> Biases | None:
    """Return the biases of a request; raise ValueError where they are none."""
    fields = _extra_args(params).get(BIASES_ARG)
    return None if fields is None else _BIASES.validate_python(fields)


def _extra_args(params: HasExtraArgs | None) -> dict[str, Any]:
    return (params and params.extra_args) or {}
