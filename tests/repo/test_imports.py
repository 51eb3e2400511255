"""The laws of the house: who may import whom, what is exported, how long a file may be."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPEN = {
    "server": {"server", "bench", "prompts", "grammars"},
    "bench": {"bench"},
    "prompts": {"prompts", "grammars"},
    "grammars": {"grammars"},
}
"""Which rooms each room may use: itself, and those behind it."""

SCRIPTS = {"against_vllm", "bfcl", "first_token", "likely", "masks", "prompts", "runtime", "soak"}
"""Of bench, what is run by itself and uses what the tests use."""

SOURCES = sorted(
    path
    for room in OPEN
    for path in (ROOT / room).rglob("*.py")
    if not (room == "bench" and path.stem in SCRIPTS)
)
PACKAGES = [path for path in SOURCES if path.name == "__init__.py"]

DISTRIBUTIONS = {
    "mcp_types": "mcp-types",
    "opentelemetry": "opentelemetry-api",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "pydantic_core": "pydantic",
    "sse_starlette": "sse-starlette",
    "yaml": "pyyaml",
}
"""What is installed under another name than it is imported by; otherwise they are the same."""

DRIVERS = {"aiosqlite", "asyncpg"}
"""Loaded by sqlalchemy, by the database's URL."""

ENGINES = {"vllm", "torch"}
"""Come with the extras `cpu` and `gpu`."""

WORLD = {
    "anyio",
    "asyncio",
    "fastapi",
    "httpx2",
    "os",
    "random",
    "socket",
    "starlette",
    "subprocess",
    "tempfile",
    "time",
    "torch",
    "transformers",
    "urllib",
    "uvicorn",
    "vllm",
}
"""What `grammars` must do without: it computes, and touches nothing."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            assert node.module is not None
            yield node.module


def distribution_of(module: str) -> str:
    first, second = [*module.split("."), ""][:2]
    return DISTRIBUTIONS.get(f"{first}.{second}") or DISTRIBUTIONS.get(first, first)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "falsework" and len(parts) > 1 else None


def test_every_room_is_known() -> None:
    folders = {
        path.name for path in (ROOT / "falsework").iterdir() if (path / "__init__.py").exists()
    }
    links = {path.name for path in (ROOT / "falsework").iterdir() if path.is_symlink()}

    assert folders == links == set(OPEN)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    open_rooms = OPEN[room]

    entered = {room_of(module) for module in imports_of(path)} - {None}

    assert entered <= open_rooms


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.parent.name == "grammars"], ids=name_of
)
def test_grammars_touch_nothing_of_the_world(path: Path) -> None:
    used = {module.partition(".")[0] for module in imports_of(path)}

    assert used & WORLD == set()


def test_what_is_imported_is_what_pyproject_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=~ ;]", line)[0] for line in project["dependencies"]}
    used = {module for path in SOURCES for module in imports_of(path)}
    ours = set(sys.stdlib_module_names) | {"falsework"} | ENGINES
    strangers = {module for module in used if module.partition(".")[0] not in ours}

    imported = {distribution_of(module) for module in strangers}

    assert imported == declared - DRIVERS


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_a_package_exports_what_it_imports_and_nothing_else(path: Path) -> None:
    """Ruff sees to it that the list is sorted (RUF022)."""
    exported: list[str] = []
    present: list[str] = []
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ImportFrom():
                present += [alias.asname or alias.name for alias in node.names]
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                exported = ast.literal_eval(value)
            case ast.Assign(targets=[ast.Name(id=name)]):
                present.append(name)
            case ast.Expr(value=ast.Constant()):
                pass
            case _:
                pytest.fail(f"{name_of(path)}:{node.lineno} does more than export")

    assert sorted(exported) == sorted(present)


def test_the_command_line_leaves_numba_to_those_who_need_it() -> None:
    """Workers of vLLM import it before all else, and on a CPU they fail where numba is loaded."""
    asked = "import sys, falsework.server.cli.main; print('numba' in sys.modules)"

    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert said.stdout == "False\n"


def test_no_file_of_ours_is_longer_than_300_lines() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    ours = [
        ROOT / name
        for name in listed
        if name.endswith((".py", ".sh", ".md", ".toml", ".jinja", "Makefile"))
        and (ROOT / name).is_file()
    ]
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in ours}

    assert {name: length for name, length in lengths.items() if length > 300} == {}
