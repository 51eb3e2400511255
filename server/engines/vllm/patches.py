"""Every place where vLLM 0.32.0 is changed from outside, and the test that fails without it.

The hooks that vLLM offers (scheduler_cls, worker_cls, a drafter class) are no patches. Nothing of
vLLM is imported before it is needed: vLLM's registry of kernels is closed once numba is loaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def replace_expand_kernel() -> None:
    """Verify drafts at the temperature that was asked for, on a CPU.

    vLLM 0.32.0: the kernel that expands values per request to values per token writes into a copy
    when they aren't whole numbers (`_expand_kernel_impl` in vllm/utils/cpu_triton_utils.py), so
    that drafts are verified at a temperature of whatever the memory held. Replaced through vLLM's
    own registry of kernels.

    Test: tests/vllm/test_patches.py::test_values_of_a_request_are_expanded_to_its_tokens.
    """
    from vllm.triton_utils.dispatcher import register_kernels  # noqa: PLC0415

    register_kernels({"vllm.v1.sample.rejection_sampler.expand_kernel": expand_batch_to_tokens})


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


@contextmanager
def without_incomplete_generators(runner: Any) -> Iterator[None]:
    """Sample without the random generators of requests whose prompt isn't complete, on a CPU.

    vLLM 0.32.0: what is sampled in the middle of a prompt is thrown away, and the request's
    generator is turned back (`_bookkeeping_sync` in vllm/v1/worker/gpu_model_runner.py), which on a
    CPU raises and ends the engine. Here nothing is drawn from it in the first place.

    Test: tests/vllm/test_forced_drafts.py::
    test_prompts_prefilled_in_chunks_beside_drafts_are_answered_as_alone.
    """
    generators = runner.input_batch.generators
    (incomplete,) = runner.discard_request_mask.np.nonzero()
    removed = {row: generators.pop(row) for row in incomplete.tolist() if row in generators}
    try:
        yield
    finally:
        generators.update(removed)


def skip_empty_verification() -> None:
    """Let a step pass in which no request has a draft and one of them has a top_k.

    vLLM 0.32.0: drafts are verified in every step, and the largest top_k of no tokens is taken
    (`apply_top_k_only` in vllm/v1/sample/ops/topk_topp_sampler.py), which raises and ends the
    engine.

    Test: tests/vllm/test_patches.py::test_a_step_without_drafts_needs_no_verification.
    """
    from vllm.v1.sample import rejection_sampler  # noqa: PLC0415

    apply_constraints = rejection_sampler.apply_sampling_constraints

    def apply_unless_empty(logits: torch.Tensor, *rest: Any) -> torch.Tensor:
        return apply_constraints(logits, *rest) if logits.shape[0] else logits

    rejection_sampler.apply_sampling_constraints = apply_unless_empty


def install_logits_processors(runner: Any) -> None:
    """Give the model runner the logits processors that vLLM leaves out beside drafts.

    vLLM 0.32.0: with a drafter, min_p and logit_bias are refused and their processors aren't
    loaded (`build_logitsprocs` in vllm/v1/sample/logits_processor/__init__.py).

    Test: tests/vllm/test_draft_ends.py::test_biases_and_free_text_beside_drafts_leave_them_alone.
    """
    from falsework.server.engines.vllm.logits_processors import logits_processors  # noqa: PLC0415

    runner.input_batch.logitsprocs = logits_processors(runner.vllm_config, runner.device)


def install_call_decisions() -> None:
    """Make the decisions between a call and none that come with a step's bitmask.

    vLLM 0.32.0: a logits processor doesn't know where a reply's constraint stands, and what the
    scheduler says of a step reaches the sampling as the bitmask alone (`sample_tokens` in
    vllm/v1/worker/gpu_model_runner.py), which `GrammarOutput` carries.

    Test: tests/vllm/test_call_decisions.py.
    """
    from vllm.v1.worker import gpu_model_runner  # noqa: PLC0415

    from falsework.server.engines.vllm.call_decisions import apply_decisions  # noqa: PLC0415

    apply_bitmask = gpu_model_runner.apply_grammar_bitmask

    def apply_with_decisions(
        scheduler_output: Any, grammar_output: Any, input_batch: Any, logits: torch.Tensor
    ) -> None:
        apply_bitmask(scheduler_output, grammar_output, input_batch, logits)
        if decisions := getattr(grammar_output, "call_decisions", None):
            apply_decisions(decisions, scheduler_output, grammar_output, input_batch, logits)

    gpu_model_runner.apply_grammar_bitmask = apply_with_decisions


def never_pad_drafts(scheduler: Any) -> None:
    """Keep a request with one token left to compute (its prompt was cached) without drafts.

    vLLM 0.32.0: such a request is padded with drafts that are then rejected: slower, and another
    random draw. A table of draft lengths by batch size (`dynamic_sd_lookup` in
    vllm/v1/core/sched/scheduler.py) turns that off; ours has the same length for each.

    Test: tests/vllm/test_forced_drafts.py::
    test_a_request_is_answered_alike_from_the_prefix_cache.
    """
    count = scheduler.num_spec_tokens
    if count:
        scheduler.dynamic_sd_lookup = [count] * (scheduler.max_num_running_reqs + 1)
