"""vLLM's worker on a CPU, with the patches that only a CPU needs."""

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from falsework.server.engines.vllm import patches
from falsework.server.engines.vllm.parent_watch import exit_with_parent


class CpuWorker(CPUWorker):  # type: ignore[misc]
    """Verifies drafts at the right temperature, and outlives long prompts with seeds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        exit_with_parent()
        patches.replace_expand_kernel()  # now: later numba is loaded
        super().__init__(*args, **kwargs)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample the tokens of one step."""
        with patches.without_incomplete_generators(self.model_runner):
            return super().sample_tokens(grammar_output)
