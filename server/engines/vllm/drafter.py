"""Drafts of forced tokens: vLLM's worker only learns that there may be some.

The worker knows no constraint, so it proposes nothing; the scheduler puts in what is forced.
"""

from typing import Any


class NullDrafter:
    """vLLM's interface of a drafter (method `custom_class`)."""

    def __init__(self, vllm_config: object) -> None:
        """Take vLLM's configuration, of which nothing is needed."""

    def load_model(self, model: object) -> None:
        """Load nothing: there is no draft model."""

    def propose(
        self, sampled_token_ids: list[list[int]], *_: object, **__: object
    ) -> list[list[int]]:
        """Return an empty draft for each request of the batch."""
        return [[] for _ in sampled_token_ids]


class WorkerExtension:
    """What we add to vLLM's worker, so that drafts change nothing but speed."""

    model_runner: Any

    def install_logits_processors(self) -> None:
        """Bring back min_p and logit_bias, which vLLM leaves out beside drafts."""
        from falsework.server.engines.vllm.logits_processors import (  # noqa: PLC0415 - loads torch
            logits_processors,
            patch_empty_verification,
        )

        patch_empty_verification()
        runner = self.model_runner
        runner.input_batch.logitsprocs = logits_processors(runner.vllm_config, runner.device)
