"""What the documents say of the repository is so."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from falsework import __version__
from falsework.server.cli.banner import EXAMPLE_REQUEST
from falsework.server.cli.main import app
from falsework.server.settings import Settings, env_var, flag_name
from falsework.server.tools.config.loader import parse_tools_file
from falsework.server.tools.errors import ERROR_TYPES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()
HOUSE = (ROOT / "docs/house.md").read_text()
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{name}.md" for name in ("gpus", "house", "settings", "speed", "tools")),
]
SHOWN = ("falsework/", "bench/", "docs/", "requirements/", "deploy/", "examples/")
"""The folders whose files are listed; of others the tree names the folder."""


def test_the_readmes_first_request_is_the_one_that_the_server_prints() -> None:
    shown = re.search(r"-d '(\{.*?\n\})'", README, re.DOTALL)

    assert shown is not None
    assert json.loads(shown[1]) == {"model": "smollm2", **EXAMPLE_REQUEST}


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.splitlines()


def tree() -> Iterator[tuple[str, str]]:
    """Yield path and line of every entry of the file tree, folders with a slash."""
    block = re.search(r"```text\n(falsework/\n.*?)```", HOUSE, re.DOTALL)
    assert block is not None, "docs/house.md has no file tree"
    folders: list[str] = []
    for line in block[1].splitlines():
        indent, name, what = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()  # type: ignore[union-attr]
        folders = folders[: len(indent) // 2]
        yield "".join([*folders, name]), what
        if name.endswith("/"):
            folders.append(name)


def expected() -> set[str]:
    files = {name for name in tracked() if "/" not in name or name.startswith(SHOWN)}
    files = {name for name in files if not name.endswith("__init__.py")}
    folders = {name.partition("/")[0] + "/" for name in tracked() if "/" in name}
    deeper = {
        "/".join(parts[:depth]) + "/"
        for parts in (name.split("/") for name in files)
        for depth in range(1, len(parts))
    }
    return files | deeper | folders


def test_the_file_tree_is_the_repositorys() -> None:
    shown = [path for path, _ in tree()]

    assert sorted(shown) == sorted(expected())


def test_every_file_of_the_tree_has_a_line() -> None:
    assert [path for path, what in tree() if not what and not path.endswith("/")] == []


def row(name: str) -> str:
    """Return a setting's row of the table of settings."""
    setting = Settings.model_fields[name]
    default = "" if setting.default in {None, "", ()} else f"`{setting.default}`".lower()
    how = "`MODEL`" if name == "model" else f"`{flag_name(name)}`"
    return f"| {how} | `{env_var(name)}` | {default} | {setting.description} |"


FAULTS = set(
    re.findall(r"`([a-z_]+)`", (ROOT / "docs/tools.md").read_text().partition("The types:")[2])
)


def test_every_error_of_a_tool_is_in_the_documents() -> None:
    assert set(ERROR_TYPES) <= FAULTS


def test_the_tools_file_of_the_documents_is_one() -> None:
    (written,) = re.findall(
        r"```yaml\n(request:.*?)```", (ROOT / "docs/tools.md").read_text(), re.DOTALL
    )
    file = yaml.safe_load(written)
    names = {tool["name"]: tool for tool in file["tools"]}
    names["find_customer"]["fallback"] = []  # names a tool that the page doesn't show

    assert len(parse_tools_file(file).tools) == 4


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_row_in_the_documents(name: str) -> None:
    assert row(name) in SETTINGS.splitlines()


def test_the_documents_have_no_setting_that_is_not_there() -> None:
    texts = [(ROOT / name).read_text() for name in DOCUMENTS]
    named = set(re.findall(r"FALSEWORK_([A-Z_]+)", "".join(texts)))
    known = {name.upper() for name in Settings.model_fields}

    assert named - known <= {"CACHE", "CONFIG"}


def test_the_documents_have_no_flag_that_is_not_there() -> None:
    texts = [(ROOT / name).read_text() for name in DOCUMENTS]
    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    there = {each for option in serve.params for each in (*option.opts, *option.secondary_opts)}

    assert set(re.findall(r"`(--[a-z-]+)", "".join(texts))) - there <= {"--stop-timeout"}, (
        "Docker's"
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_within_the_repository_resolve(name: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text())
    ours = [link for link in links if not link.startswith("http")]

    def resolves(link: str) -> bool:
        path, _, anchor = link.partition("#")
        text = (
            (ROOT / name).parent.joinpath(path or ROOT / name).read_text()
            if not path or path.endswith(".md")
            else ""
        )
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
        return (ROOT / name).parent.joinpath(path).exists() and (not anchor or anchor in anchors)

    assert [link for link in ours if not resolves(link)] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_in_the_documents_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    named = set(re.findall(r"`((?:falsework|tests|bench|docs|requirements)/[\w./-]+)`", text))

    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_changelog_begins_with_what_comes_next_and_knows_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] in {"Unreleased", __version__}
    assert {"Unreleased", __version__} & set(headings)


def test_the_make_targets_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for name in DOCUMENTS
        for target in re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / name).read_text(), re.MULTILINE)
    }

    assert named <= targets
