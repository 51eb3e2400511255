"""The fast tier leaves out what it says and nothing else."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
LEFT_OUT = re.findall(r"--ignore (\S+)", MAKEFILE)
MARKS = {"engine", "slow"}
FIXTURES = {"server", "random_server"}
"""Fixtures that start the engine: tests/conftest.py marks the tests that ask for them."""

IGNORED = [path for folder in LEFT_OUT for path in sorted((ROOT / folder).glob("test_*.py"))]


def test_the_fast_tier_leaves_out_a_folder_that_is_there() -> None:
    assert IGNORED


@pytest.mark.parametrize("path", IGNORED, ids=lambda path: path.name)
def test_a_file_that_the_fast_tier_leaves_out_has_no_fast_test(path: Path) -> None:
    tree = ast.parse(path.read_text())
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    asked = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}

    assert named & MARKS or asked & FIXTURES


def test_ci_runs_every_tier() -> None:
    test = re.search(r"^test:.*\n\t(.*)$", MAKEFILE, re.MULTILINE)

    assert test is not None
    assert "-m" not in test[1].partition("pytest")[2]
    assert "make test 2>&1" in (ROOT / ".ci/run").read_text()
