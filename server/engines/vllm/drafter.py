"""vLLM's side of drafting: the worker only learns that there may be drafts.

The worker knows no constraint, so it proposes nothing; the scheduler puts in the forced tokens.
"""

from typing import Any

from falsework.server.engines.vllm import patches


class NullDrafter:
    """vLLM's interface of a drafter (method `custom_class`)."""

    def __init__(self, vllm_config: object) -> None:
        """Accept vLLM's configuration; nothing of it is needed."""

    def load_model(self, model: object) -> None:
        """Load nothing: there is no draft model."""

    def propose(
        self, sampled_token_ids: list[list[int]], *_: object, **__: object
    ) -> list[list[int]]:
        """Return an empty draft for each request of the batch."""
        return [[] for _ in sampled_token_ids]


class WorkerExtension:
    """Mixed into vLLM's worker: its methods are called by name through `collective_rpc`."""

    model_runner: Any

    def patch_sampling(self) -> None:
        """Install what sampling beside drafts needs."""
        patches.skip_empty_verification()
        patches.install_call_decisions()
        patches.install_logits_processors(self.model_runner)
