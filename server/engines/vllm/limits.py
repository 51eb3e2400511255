"""What vLLM 0.32 can sample with, beyond the ranges that its own validation knows."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from falsework.server.engines.base import SamplingParams
from falsework.server.errors import BadRequestError

GREEDY_BELOW = 1e-5
"""Temperatures below it are greedy for vLLM (`_SAMPLING_EPS` in vllm/sampling_params.py)."""

MIN_REPETITION_PENALTY = 0.01
"""Below it logits may become infinite, and their log probabilities no numbers."""


def fit_to_engine(sampling: SamplingParams, logits: int) -> SamplingParams:
    """Return parameters that vLLM samples with; raise BadRequestError naming a field it can't take.

    `logits` is how many tokens the model has a logit for: a bias beyond them would raise inside a
    step and end the engine for every request.
    """
    check_token_ids(sampling.logit_bias or {}, logits)
    if sampling.repetition_penalty < MIN_REPETITION_PENALTY:
        raise BadRequestError(
            f"Invalid 'repetition_penalty': this server needs at least {MIN_REPETITION_PENALTY}.",
            "repetition_penalty",
            "decimal_below_min_value",
        )
    if sampling.n > 1 and sampling.temperature < GREEDY_BELOW:
        # vLLM refuses several greedy choices; sampling from the best token alone is the same.
        sampling = replace(sampling, temperature=1.0, top_k=1)
    # As the engine's own type: what is 0 there has to be 0 here, or vLLM miscounts its users.
    return replace(sampling, min_p=float(np.float32(sampling.min_p)))


def check_token_ids(biases: Mapping[int, float], logits: int) -> None:
    """Raise BadRequestError for a token id without a logit."""
    for token in biases:
        if not 0 <= token < logits:
            raise BadRequestError(
                f"Invalid 'logit_bias': there is no token {token}; "
                f"this model's token ids end at {logits - 1}.",
                "logit_bias",
                "invalid_value",
            )
