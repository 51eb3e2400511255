"""vLLM's worker on a CPU: in the engine's process, and put right where vLLM 0.32.0 errs."""

from typing import Any

import torch
from vllm.triton_utils.dispatcher import register_kernels
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.worker.cpu_worker import CPUWorker


class InProcess(UniProcExecutor):  # type: ignore[misc]
    """Runs the worker in the engine's own process.

    vLLM gives a CPU's worker a process of its own and leaves a core to the rest. In one process a
    start is 15 s shorter, and on two cores a step takes two thirds and a prefill half of the time
    (measured on SmolLM2-135M).
    """


class CpuWorker(CPUWorker):  # type: ignore[misc]
    """Verifies drafts at the temperature that was asked for, and outlives long prompts with seeds.

    vLLM's own kernel that expands values per request to values per token writes into a copy when
    they aren't whole numbers (`_expand_kernel_impl` in vllm/utils/cpu_triton_utils.py), so that
    drafts are verified at a temperature of whatever the memory held.

    What is sampled in the middle of a prompt is thrown away, and the request's random numbers are
    turned back (`_bookkeeping_sync` in vllm/v1/worker/gpu_model_runner.py), which on a CPU raises
    and ends the engine. Here they aren't drawn in the first place.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Now, for vLLM's registry can't be changed any more once numba is loaded.
        register_kernels({"vllm.v1.sample.rejection_sampler.expand_kernel": expand_batch_to_tokens})
        super().__init__(*args, **kwargs)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample without the generators of requests whose prompt isn't complete."""
        generators = self.model_runner.input_batch.generators
        (incomplete,) = self.model_runner.discard_request_mask.np.nonzero()
        kept = {row: generators.pop(row) for row in incomplete.tolist() if row in generators}
        try:
            return super().sample_tokens(grammar_output)
        finally:
            generators.update(kept)


def expand_batch_to_tokens(  # noqa: PLR0913 - the kernel's own parameters
    output: torch.Tensor,
    values: torch.Tensor,
    ends: torch.Tensor,
    replace_from: float,
    replace_to: float,
    MAX_NUM_TOKENS: int | None = None,  # noqa: ARG001, N803
) -> None:
    """Write value i to output[ends[i - 1]:ends[i]], `replace_to` in the place of `replace_from`."""
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    replaced = values.masked_fill(values == replace_from, replace_to)
    output.copy_(replaced.repeat_interleave(counts))
