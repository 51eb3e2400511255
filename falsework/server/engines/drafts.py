"""Drafts of forced tokens: vLLM's worker only learns that there may be some.

The worker knows no constraint, so it proposes nothing; the scheduler puts in what is forced.
"""

from typing import Any


class NoDrafts:
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
    """What we add to vLLM's worker: min_p and logit_bias, which it leaves out beside drafts.

    vLLM refuses both fields there, since its verification of drafts doesn't look at them. We need
    them only where no draft stands: drafted tokens are forced, whatever their logits.
    """

    model_runner: Any

    def honour_biases(self) -> None:
        """Put the two logits processors back, reading the fields from `extra_args`."""
        from falsework.server.engines.biases import processors  # noqa: PLC0415 - loads torch

        runner = self.model_runner
        runner.input_batch.logitsprocs = processors(runner.vllm_config, runner.device)
