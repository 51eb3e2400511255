"""docs/architecture.md draws the rooms as they are, and a request's life as a trace sees it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.architecture import PAGES, index, purpose_of, written
from support.documents import ROOT, block
from support.layers import LAYERS

ARCHITECTURE, FILES = (page.read_text() for page in PAGES)
STALE = "the list isn't what it was made from any more: run `make docs`, and read what changed"


def listed(name: str, page: str) -> str:
    found = re.search(rf"<!-- {name} -->\n\n(.*?)\n<!-- end of {name} -->", page, re.DOTALL)
    assert found is not None, f"the page has no list {name}"
    return found[1]


@pytest.fixture(scope="module")
def traced(smollm2: Path) -> dict[str, str]:
    """The lists as a process of its own makes them: nothing is kept from another test."""
    del smollm2  # it is there
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    said = subprocess.run(
        [sys.executable, "-m", "support.architecture", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    made: dict[str, str] = json.loads(said.stdout.splitlines()[-1])
    return made


@pytest.mark.parametrize("name", ["chat", "response"])
def test_the_life_of_a_request_is_what_a_trace_sees(name: str, traced: dict[str, str]) -> None:
    assert listed(name, ARCHITECTURE) == traced[name], STALE


def test_every_file_has_a_line_in_the_list_of_files() -> None:
    assert listed("files", FILES) == index(), STALE


def test_lists_are_written_where_the_page_has_a_place_for_them() -> None:
    page = "# A\n\n<!-- a -->\n\nold\n\n<!-- end of a -->\n\nrest\n"

    made = written(page, {"a": "1. new\n", "b": "elsewhere"})

    assert made == page.replace("old", "1. new")
    assert written(made, {"a": "1. new\n"}) == made


@pytest.mark.parametrize("path", ["server/errors.py", "grammars/dfa.py"])
def test_a_files_purpose_is_the_first_line_of_its_docstring(path: str) -> None:
    assert (ROOT / path).read_text().startswith(f'"""{purpose_of(path)}')


def drawn() -> list[str]:
    """Return the places of the drawing, from the top."""
    names: list[str] = []
    for line in block("docs/architecture.md", "text").text.splitlines():
        indent, words = re.match(r"( *)((?:\S+ )+)", f"{line} ").groups()  # type: ignore[union-attr]
        if line != "server/":
            names += [f"{'server/' if indent else ''}{word.rstrip('/')}" for word in words.split()]
    return names


def test_the_drawing_has_the_layers_in_their_order() -> None:
    height = {place: number for number, layer in enumerate(LAYERS) for place in layer}
    folders = {place for place in height if place not in {"bench", "server"}}

    heights = [height[place] for place in drawn()]

    assert {place for place in folders if not place.endswith(".py")} <= set(drawn())
    assert heights == sorted(heights, reverse=True)


def test_every_entry_of_the_repository_has_a_line() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    entries = {f"{name.partition('/')[0]}/" if "/" in name else name for name in tracked}
    rows = re.findall(
        r"^\| `([\w./-]+)` \|", ARCHITECTURE.partition("## The rest")[2], re.MULTILINE
    )

    assert entries == {*rows, "server/", "prompts/", "grammars/", "bench/"}


def test_the_table_of_what_to_add_counts_its_files() -> None:
    table = ARCHITECTURE.partition("## To add")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (a.*?) \| (.*?) \| (\d+) \|$", table, re.MULTILINE)

    counted = {name: len(set(re.findall(r"`([^`]+)`", files))) for name, files, _ in rows}

    assert len(rows) > 8
    assert counted == {name: int(count) for name, _, count in rows}
