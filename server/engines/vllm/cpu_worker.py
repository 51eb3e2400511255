"""vLLM's worker on a CPU, with the patches that only a CPU needs."""

from contextlib import nullcontext
from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from falsework.server.engines.vllm import patches
from falsework.server.engines.vllm.parent_watch import exit_with_parent
from falsework.server.engines.vllm.wait_policy import WaitPolicy, wait_policy


class CpuWorker(CPUWorker):  # type: ignore[misc]
    """Verifies drafts at the right temperature, and outlives long prompts with seeds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        exit_with_parent()
        patches.replace_expand_kernel()  # now: later numba is loaded
        super().__init__(*args, **kwargs)
        self._policy: WaitPolicy | None = None
        self._looked = False

    def execute_model(self, scheduler_output: Any) -> Any:
        """Run the model for one step; its threads wait as is best beside other processes."""
        if not self._looked:  # the first step, in the thread that will run them all
            self._policy, self._looked = wait_policy(), True
        with self._policy.step() if self._policy else nullcontext():
            return super().execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample the tokens of one step."""
        with patches.without_incomplete_generators(self.model_runner):
            return super().sample_tokens(grammar_output)
