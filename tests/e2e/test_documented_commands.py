"""The commands and programs of the README do what it says, run as they stand there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.documented_commands import CURL, SERVE, run, served
from support.documents import Block, block, blocks
from support.json_schema import faults

from falsework.server.cli.banner import EXAMPLE_REQUEST

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

SCHEMA = EXAMPLE_REQUEST["tools"][0]["function"]["parameters"]  # type: ignore[index]
VARIES = {"id", "arguments"}


@pytest.fixture(scope="module")
def server_of_the_readme(cloned: Path) -> Iterator[Path]:
    with served(SERVE, cloned, 2048) as log:
        yield log


def test_make_serve_prints_the_model_the_dialect_and_the_url(server_of_the_readme: Path) -> None:
    said = server_of_the_readme.read_text()

    for line in ("  model    smollm2\n", "  dialect  ", "  URL      http://127.0.0.1:8000/v1\n"):
        assert line in said


def shape(value: Any, name: str = "") -> Any:
    """Return the value without what varies from run to run."""
    if isinstance(value, dict):
        return {key: shape(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return name if name in VARIES else value


def part(whole: Any, shown: Any) -> Any:
    """Return of the whole what is shown, at every depth."""
    if isinstance(whole, dict) and isinstance(shown, dict):
        return {key: part(whole[key], inner) for key, inner in shown.items()}
    if isinstance(whole, list) and isinstance(shown, list) and len(whole) == len(shown):
        return [part(*pair) for pair in zip(whole, shown, strict=True)]
    return whole


@pytest.mark.usefixtures("server_of_the_readme")
def test_the_first_request_gets_a_call_that_fits_its_schema_as_shown(cloned: Path) -> None:
    shown = json.loads(block("README.md", "json").text)

    reply = json.loads(run(CURL, cloned))

    assert shape(part(reply, shown)) == shape(shown)
    (call,) = reply["choices"][0]["message"]["tool_calls"]
    assert_fits(call["function"]["arguments"], SCHEMA)


def assert_fits(arguments: str, schema: Any) -> None:
    assert faults(json.loads(arguments), schema) == [], arguments


GREEDY = ('model="smollm2",', 'model="smollm2", temperature=0,')
RUNS = 3


@pytest.mark.usefixtures("server_of_the_readme")
@pytest.mark.parametrize("greedy", [False, True], ids=["as_it_stands", "greedy"])
@pytest.mark.parametrize("program", blocks("python"), ids=str)
def test_a_program_prints_one_call_that_fits_and_then_an_answer(
    program: Block, cloned: Path, *, greedy: bool
) -> None:
    text = program.text.replace(*GREEDY) if greedy else program.text
    assert text.count("temperature") == 2 * greedy

    for _ in range(1 if greedy else RUNS):
        said = run(".venv/bin/python -", cloned, text)

        first, *rest = said.splitlines()
        name, _, arguments = first.partition(" ")
        assert name == "get_weather"
        assert_fits(arguments, {"required": ["city"], "properties": {"city": {"type": "string"}}})
        assert not any(line.startswith("get_weather {") for line in rest), "one call"
        assert "".join(rest).strip() not in {"", "None"}, "an answer"
