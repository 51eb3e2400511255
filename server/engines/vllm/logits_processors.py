"""vLLM's logits processors for min_p and logit_bias, which read their values from extra_args.

vLLM 0.32 refuses both fields beside drafts, since its verification of drafts ignores them. Here
they only matter where no draft stands: drafted tokens are forced, whatever their logits, and
requests with biases get no likely drafts.
"""

from dataclasses import replace

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import (
    BatchUpdate,
    LogitBiasLogitsProcessor,
    LogitsProcessors,
    MinPLogitsProcessor,
)
from vllm.v1.sample.logits_processor.builtin import MinTokensLogitsProcessor

from falsework.server.engines.vllm.extra_args import read_biases


def _restored(update: BatchUpdate | None) -> BatchUpdate | None:
    """Return the update with both fields where vLLM's processors look for them."""
    if update is None or not update.added:
        return update
    added = [(index, _with_biases(params), *rest) for index, params, *rest in update.added]
    return replace(update, added=added)


def _with_biases(params: SamplingParams) -> SamplingParams:
    biases = read_biases(params)
    if biases is None:
        return params
    restored = params.clone()
    restored.min_p = biases.min_p
    restored.logit_bias = biases.logit_bias
    return restored


class MinP(MinPLogitsProcessor):  # type: ignore[misc]
    """min_p, read from extra_args."""

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Take over requests that joined the batch, forget those that left."""
        super().update_state(_restored(batch_update))


class LogitBias(LogitBiasLogitsProcessor):  # type: ignore[misc]
    """logit_bias, read from extra_args."""

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Take over requests that joined the batch, forget those that left."""
        super().update_state(_restored(batch_update))


def logits_processors(config: VllmConfig, device: torch.device) -> LogitsProcessors:
    """Return the logits processors that vLLM uses without drafts."""
    kinds = (MinTokensLogitsProcessor, LogitBias, MinP)
    return LogitsProcessors(kind(config, device, is_pin_memory=False) for kind in kinds)
