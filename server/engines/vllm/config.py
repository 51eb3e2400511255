"""What vLLM is started with, on a CPU and on GPUs."""

import os
from collections.abc import Sequence
from typing import Any

import psutil
from torch.cpu import _is_amx_tile_supported, _is_avx512_bf16_supported
from vllm import AsyncEngineArgs
from vllm.platforms import CpuArchEnum, current_platform

from falsework.server.settings import ConfigError, Settings

_WORKER = "falsework.server.engines.vllm.cpu_worker"

_BLOCK = 32
"""Tokens in a block of the KV cache on a CPU.

Where a prompt goes on as one before it did, fewer than that are computed again. With vLLM's own 128
a short call takes a third longer, and a step in long texts 4 % less (measured on SmolLM2-135M).
"""

MANY_CORES = 4
"""So many cores that one can be left to the server without being missed."""


def engine_args(settings: Settings, model: str, markers: Sequence[str]) -> AsyncEngineArgs:
    """Return vLLM's settings; raise BadSetting for a device that the installed vLLM isn't for."""
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
        scheduler_cls="falsework.server.engines.vllm.scheduler.ConstrainedScheduler",
        # Drafts are put in by the scheduler, which async scheduling doesn't wait for.
        async_scheduling=False,
        speculative_config=_drafted(settings.draft_tokens),
        worker_cls=f"{_WORKER}.CpuWorker" if on_cpu else "auto",
        distributed_executor_backend=_executor(settings, on_cpu),
        worker_extension_cls="falsework.server.engines.vllm.drafter.WorkerExtension",
        additional_config={"markers": list(markers), "copy_drafts": settings.copy_drafts},
        disable_log_stats=False,  # /metrics tells vLLM's own figures beside ours
        enable_log_requests=False,
    )


def dtype(asked: str, *, on_cpu: bool) -> str:
    """Return what to compute with: what was asked for, or what this machine is good at."""
    # Without instructions for it bfloat16 is 50 times slower than float32 (measured on AVX2).
    x86 = current_platform.get_cpu_architecture() == CpuArchEnum.X86
    emulated = on_cpu and x86 and not (_is_avx512_bf16_supported() or _is_amx_tile_supported())
    return "float32" if asked == "auto" and emulated else asked


def _executor(settings: Settings, on_cpu: bool) -> type | None:
    if not on_cpu or settings.tensor_parallel_size > 1:
        return None
    from falsework.server.engines.vllm.cpu_worker import InProcess  # noqa: PLC0415 - only there is a CPU's

    os.environ.setdefault("OMP_NUM_THREADS", str(_threads()))
    return InProcess


def _threads() -> int:
    """Return how many threads compute: all cores of a small machine, all but one of a large one."""
    cores = psutil.cpu_count(logical=False) or 1
    usable = min(cores, len(os.sched_getaffinity(0)))
    return usable if usable < MANY_CORES else usable - 1


def _drafted(tokens: int) -> dict[str, Any] | None:
    drafter = "falsework.server.engines.vllm.drafter.NullDrafter"
    asked = {"method": "custom_class", "model": drafter, "num_speculative_tokens": tokens}
    return asked if tokens else None
