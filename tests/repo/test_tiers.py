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


def test_every_test_is_of_one_tier_and_ci_runs_all_but_the_slow_one() -> None:
    tiers = re.findall(
        r'pytest -m "([^"]+)"', MAKEFILE.partition("\ntest:")[2].partition("\ntest-slow")[0]
    )

    assert tiers == ["not engine and not slow", "engine and not slow"]
    assert "pytest -m slow" in MAKEFILE
    assert "make test 2>&1" in (ROOT / ".ci/run").read_text()
