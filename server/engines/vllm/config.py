"""vLLM's engine arguments, made from the settings, for CPUs and GPUs."""

from collections.abc import Sequence
from typing import Any

from vllm import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from falsework.server.engines.cpu import emulates_bfloat16
from falsework.server.settings import ConfigError, Settings

_PACKAGE = __name__.rpartition(".")[0]

_BLOCK = 32
"""Tokens in a block of the KV cache on a CPU.

Of a prompt that shares a prefix with an earlier one, fewer than that are computed again. With
vLLM's own 128 a short call takes a third longer, and a step in long texts 4 % less (measured on
SmolLM2-135M).
"""


def engine_args(settings: Settings, model: str, markers: Sequence[str]) -> AsyncEngineArgs:
    """Return vLLM's arguments; raise ConfigError for a device that this vLLM isn't built for."""
    on_cpu = current_platform.is_cpu()
    if settings.device != "auto" and (settings.device == "cpu") != on_cpu:
        here = "cpu" if on_cpu else "cuda"
        msg = f"device: {settings.device} isn't what the installed vLLM runs on, which is {here}"
        raise ConfigError(msg)
    # Compiling the model takes minutes at the first start; on a CPU it gains a fifth of a step.
    eager = on_cpu if settings.enforce_eager is None else settings.enforce_eager
    return AsyncEngineArgs(
        model=model,
        tokenizer_mode="hf",  # the same tokenizer that lays out prompts, also beside a tekken.json
        block_size=_BLOCK if on_cpu else None,
        dtype=dtype(settings.dtype, on_cpu=on_cpu),
        max_model_len=settings.max_model_len,
        enforce_eager=eager,
        tensor_parallel_size=settings.tensor_parallel_size,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        kv_cache_memory_bytes=int(settings.kv_cache_gib * 2**30) if on_cpu else None,
        scheduler_cls=f"{_PACKAGE}.scheduler.ConstrainedScheduler",
        # The scheduler puts in the drafts, and async scheduling doesn't wait for it.
        async_scheduling=False,
        speculative_config=_speculative_config(settings.draft_tokens),
        worker_cls=f"{_PACKAGE}.cpu_worker.CpuWorker" if on_cpu else "auto",
        distributed_executor_backend=_executor(settings, on_cpu),
        worker_extension_cls=f"{_PACKAGE}.drafter.WorkerExtension",
        additional_config={"markers": list(markers), "copy_drafts": settings.copy_drafts},
        disable_log_stats=False,  # /metrics shows vLLM's own figures beside ours
        enable_log_requests=False,
        use_tqdm_on_load=settings.log_level == "debug",
    )


def dtype(setting: str, *, on_cpu: bool) -> str:
    """Return the type to compute with: the setting, or for `auto` what this machine is fast at."""
    return "float32" if setting == "auto" and on_cpu and emulates_bfloat16() else setting


def _executor(settings: Settings, on_cpu: bool) -> type[UniProcExecutor] | None:
    """Return the executor of a CPU's worker: in the engine's own process.

    vLLM would give the worker a process of its own and leave a core to the rest. In one process a
    start is 15 s shorter, and on two cores a step takes two thirds and a prefill half of the time
    (measured on SmolLM2-135M). vLLM replaces the name "uni" on a CPU, but not the class.
    """
    if not on_cpu or settings.tensor_parallel_size > 1:
        return None
    in_process: type[UniProcExecutor] = UniProcExecutor
    return in_process


def _speculative_config(draft_tokens: int) -> dict[str, Any] | None:
    if not draft_tokens:
        return None
    drafter = f"{_PACKAGE}.drafter.NullDrafter"
    return {"method": "custom_class", "model": drafter, "num_speculative_tokens": draft_tokens}
