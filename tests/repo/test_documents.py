"""What the documents say of the repository is so."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.documents import DOCUMENTS
from typer.main import get_command

from falsework import __version__
from falsework.server.cli.banner import EXAMPLE_REQUEST
from falsework.server.cli.main import app
from falsework.server.settings import Settings, env_var, flag_name
from falsework.server.tools.errors import ERROR_TYPES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()


def test_the_readmes_first_request_is_the_one_that_the_server_prints() -> None:
    shown = re.search(r"-d '(\{.*?\n\})'", README, re.DOTALL)

    assert shown is not None
    assert json.loads(shown[1]) == {"model": "smollm2", **EXAMPLE_REQUEST}


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


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_row_in_the_documents(name: str) -> None:
    assert row(name) in SETTINGS.splitlines()


def test_the_documents_have_no_setting_that_is_not_there() -> None:
    texts = [(ROOT / name).read_text() for name in DOCUMENTS]
    named = set(re.findall(r"FALSEWORK_([A-Z_]+)", "".join(texts)))
    known = {name.upper() for name in Settings.model_fields}

    assert named - known <= {"CACHE", "CONFIG"}


def commands(command: Any) -> Iterator[Any]:
    """Yield a command and those below it."""
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from commands(below)


def flags_of(command: Any) -> Iterator[str]:
    for option in command.params:
        yield from (*option.opts, *option.secondary_opts)


def test_the_documents_have_no_flag_that_is_not_there() -> None:
    texts = [(ROOT / name).read_text() for name in DOCUMENTS]
    there = {flag for command in commands(get_command(app)) for flag in flags_of(command)}

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
    named = set(
        re.findall(
            r"`((?:falsework|server|prompts|grammars|tests|bench|docs|requirements)/[\w./-]+)`",
            text,
        )
    )

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
