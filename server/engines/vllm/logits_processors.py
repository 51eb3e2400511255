"""Sampling beside drafts: what vLLM 0.32 leaves out there.

min_p and logit_bias are refused beside drafts, since vLLM's verification of drafts doesn't look at
them. We need them only where no draft stands (drafted tokens are forced, whatever their logits,
and requests with a bias get no likely drafts), so vLLM's own processors do, told where the fields
stand.
"""

from dataclasses import replace
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample import rejection_sampler
from vllm.v1.sample.logits_processor import (
    BatchUpdate,
    LogitBiasLogitsProcessor,
    LogitsProcessors,
    MinPLogitsProcessor,
)
from vllm.v1.sample.logits_processor.builtin import MinTokensLogitsProcessor

from falsework.server.engines.base import BIASES_ARG


def _restored(update: BatchUpdate | None) -> BatchUpdate | None:
    """Return the update with the two fields where vLLM's processors look for them."""
    if update is None or not update.added:
        return update
    added = [(index, _with_biases(params), *rest) for index, params, *rest in update.added]
    return replace(update, added=added)


def _with_biases(params: SamplingParams) -> SamplingParams:
    biases: dict[str, Any] = (params.extra_args or {}).get(BIASES_ARG) or {}
    if not biases:
        return params
    restored = params.clone()
    restored.min_p = biases["min_p"]
    restored.logit_bias = {int(token): bias for token, bias in biases["logit_bias"].items()}
    return restored


class MinP(MinPLogitsProcessor):  # type: ignore[misc]
    """min_p, read from extra_args."""

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Take in who joined and left the batch."""
        super().update_state(_restored(batch_update))


class LogitBias(LogitBiasLogitsProcessor):  # type: ignore[misc]
    """logit_bias, read from extra_args."""

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Take in who joined and left the batch."""
        super().update_state(_restored(batch_update))


def patch_empty_verification() -> None:
    """Let a step pass in which nobody has a draft and somebody asks for top_k.

    vLLM 0.32 verifies drafts in every step and takes the largest top_k of no tokens
    (`apply_top_k_only` in vllm/v1/sample/ops/topk_topp_sampler.py), which raises and ends the
    engine.
    """
    constrained = rejection_sampler.apply_sampling_constraints

    def unless_empty(logits: torch.Tensor, *rest: Any) -> torch.Tensor:
        return constrained(logits, *rest) if logits.shape[0] else logits

    rejection_sampler.apply_sampling_constraints = unless_empty


def logits_processors(config: VllmConfig, device: torch.device) -> LogitsProcessors:
    """Return what vLLM uses without drafts."""
    kinds = (MinTokensLogitsProcessor, LogitBias, MinP)
    return LogitsProcessors(kind(config, device, is_pin_memory=False) for kind in kinds)
