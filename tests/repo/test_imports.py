"""The laws of the house: who may import whom, what is exported, how long a file may be."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.import_graph import (
    Import,
    bypasses,
    climbs,
    imports,
    loads,
    unused_exports,
)
from support.layers import LAYERS, ROOMS

ROOT = Path(__file__).parents[2]
HEAVY = {"llguidance", "numba", "torch", "transformers", "vllm"}
DIRECT = {
    "grammars/admitted.py": "numba",
    "grammars/call_decisions.py": "numba",
    "grammars/call_formats.py": "llguidance",
    "grammars/dfa.py": "numba",
    "grammars/events.py": "llguidance",
    "grammars/jump_forward.py": "numba",
    "grammars/last_choice.py": "llguidance",
    "grammars/llguidance_grammar.py": "llguidance",
    "grammars/llguidance_reply.py": "llguidance",
    "grammars/masks.py": "numba",
    "grammars/output_parser.py": "llguidance",
    "grammars/reply_format.py": "llguidance",
    "grammars/reply_grammar.py": "llguidance",
    "grammars/text_grammar.py": "llguidance",
    "grammars/tool_choice.py": "llguidance",
    "grammars/vocabulary.py": "numba",
    "grammars/warm_up.py": "numba",
    "prompts/conversation_layout.py": "llguidance",
    "prompts/detection.py": "llguidance",
    "prompts/dialects.py": "llguidance",
    "prompts/messages.py": "llguidance",
    "prompts/reasoning_switches.py": "llguidance",
    "prompts/renderer.py": "llguidance",
    "prompts/tokenizers.py": "numba",
    "prompts/turns.py": "llguidance",
    "server/engines/llguidance_matcher.py": "llguidance",
    "server/engines/matcher.py": "numba",
    "server/generation/constraints.py": "llguidance",
    "server/generation/trial_worker.py": "llguidance",
}
"""Modules that no package exports, and what they load.

The command line imports these packages for light things: the names of the dialects, say. It has to
start quickly, and vLLM's workers fail where it has loaded numba. `server/engines/vllm` exports
nothing: vLLM's processes import its modules by name, each for itself.
"""

SCRIPTS = {
    "against_vllm",
    "bfcl",
    "capacity",
    "capacity_outage",
    "capacity_report",
    "first_token",
    "fuzz_sampling",
    "fuzz_schemas",
    "likely",
    "masks",
    "neighbours",
    "prompts",
    "replicas",
    "runtime",
    "schemas",
    "soak",
    "turns",
}
"""Of bench, what is run by itself and uses what the tests use."""

SOURCES = sorted(
    path
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if not (room == "bench" and path.stem in SCRIPTS)
)
PACKAGES = [path for path in SOURCES if path.name == "__init__.py"]

DISTRIBUTIONS = {
    "jsonschema_specifications": "jsonschema-specifications",
    "mcp_types": "mcp-types",
    "opentelemetry": "opentelemetry-api",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "pydantic_core": "pydantic",
    "pydantic_settings": "pydantic-settings",
    "sse_starlette": "sse-starlette",
    "yaml": "pyyaml",
}
"""What is installed under another name than it is imported by; otherwise they are the same."""

DRIVERS = {"aiosqlite", "asyncpg"}
"""Loaded by sqlalchemy, by the database's URL."""

ENGINES = {"ray", "torch", "vllm"}
"""Come with the extras `cpu`, `gpu` and `ray`."""

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


def our_imports() -> list[Import]:
    return list(imports(ROOT, map(name_of, SOURCES)))


def distribution_of(module: str) -> str:
    first, second = [*module.split("."), ""][:2]
    return DISTRIBUTIONS.get(f"{first}.{second}") or DISTRIBUTIONS.get(first, first)


def test_every_room_is_known() -> None:
    folders = {
        path.name for path in (ROOT / "falsework").iterdir() if (path / "__init__.py").exists()
    }
    links = {path.name for path in (ROOT / "falsework").iterdir() if path.is_symlink()}

    assert folders == links == set(ROOMS)


def test_imports_only_go_down_the_layers() -> None:
    assert list(map(str, climbs(our_imports(), LAYERS))) == []


def test_every_place_of_the_layers_is_there_once() -> None:
    places = [place for layer in LAYERS for place in layer]

    assert [place for place in places if not (ROOT / place).exists()] == []
    assert len(set(places)) == len(places)


def test_what_a_package_exports_is_imported_from_the_package() -> None:
    apart = {place for layer in LAYERS for place in layer if place.endswith(".py")}

    found = bypasses(ROOT, our_imports(), {*DIRECT, *apart})

    assert list(map(str, found)) == []


def test_a_package_exports_only_what_other_folders_import() -> None:
    assert unused_exports(ROOT, our_imports()) == []


@pytest.mark.parametrize(("path", "library"), DIRECT.items())
def test_a_module_that_is_imported_directly_is_heavy(path: str, library: str) -> None:
    assert library in HEAVY
    assert loads(ROOT, path, {library})


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_rooms_are_imported_by_the_name_of_the_package(path: Path) -> None:
    """Otherwise a user's own `server.py` or `prompts/` would stand in for ours."""
    used = {module.partition(".")[0] for module in imports_of(path)}

    assert used & set(ROOMS) == set()


def test_the_linter_bans_the_rooms_as_packages_of_their_own() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]

    assert set(linter["flake8-tidy-imports"]["banned-api"]) == set(ROOMS)


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


WRITTEN_BY_A_SCRIPT = {"docs/architecture.md", "docs/files.md"}
"""A line for each file: nobody keeps it by hand."""


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
        and name not in WRITTEN_BY_A_SCRIPT
    ]
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in ours}

    assert {name: length for name, length in lengths.items() if length > 300} == {}
