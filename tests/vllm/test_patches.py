"""vLLM's own faults, as long as it has them, and what becomes of them with our patches."""

import pytest
import torch

from falsework.server.engines.vllm import patches

pytestmark = [
    pytest.mark.slow,  # vLLM takes ten seconds to import
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]


def test_values_of_a_request_are_expanded_to_its_tokens() -> None:
    from vllm.platforms import current_platform  # noqa: PLC0415
    from vllm.utils.cpu_triton_utils import _expand_kernel_impl  # noqa: PLC0415

    if not current_platform.is_cpu():
        pytest.skip("the installed vLLM runs on a GPU, with a kernel that is right")
    current_platform.import_kernels()
    values, ends = torch.tensor([0.0, 0.5, 2.0]), torch.tensor([2, 3, 6])
    expected = [1.0, 1.0, 0.5, 2.0, 2.0, 2.0]
    by_vllm, by_us = torch.full((6,), -1.0), torch.full((6,), -1.0)

    _expand_kernel_impl(by_vllm, values, ends, 0, 1, 32)
    patches.expand_batch_to_tokens(by_us, values, ends, 0, 1)

    assert by_us.tolist() == expected
    assert by_vllm.tolist() != expected, "vLLM is mended: this patch can go"


def test_a_step_without_drafts_needs_no_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.sample import rejection_sampler  # noqa: PLC0415
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_only  # noqa: PLC0415

    no_tokens, no_top_k = torch.empty((0, 8)), torch.empty(0, dtype=torch.int32)
    monkeypatch.setattr(
        rejection_sampler,
        "apply_sampling_constraints",
        lambda logits: apply_top_k_only(logits, no_top_k),
    )
    with pytest.raises((RuntimeError, IndexError)):
        rejection_sampler.apply_sampling_constraints(no_tokens)

    patches.skip_empty_verification()

    assert rejection_sampler.apply_sampling_constraints(no_tokens).shape == (0, 8)
