"""Every block of the documents is run, or stands in a table with the reason why it isn't.

`tests/e2e/test_documented_commands.py` runs what needs a running server.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from support.documented_commands import RUN
from support.documents import ROOT, Block, block, blocks, blocks_of
from support.upstream import call, hangs, toolbox, upstream, write

CI = "`.ci/run` runs it, after the tests"
MINUTES = "takes minutes; what it computes is tested in tests/repo/test_bench.py"
DOCKER = "needs Docker and an NVIDIA GPU; tests/repo/test_docker.py checks what it says"
RAY = "needs Ray and minutes; tests/replicas/test_ray.py runs replicas, with a scripted engine"
CLUSTER = "needs a cluster; tests/repo/test_kubernetes.py checks what it would get"
NOT_RUN = {
    "make test": "is this very run",
    'make test ARGS="-k stops --no-header"': "is this very run, a part of it",
    "make test-fast": "is this very run, a part of it",
    "make test-slow": "takes many minutes, and fetches packages",
    "make test-ray": "fetches Ray, and takes minutes",
    "make serve-ray REPLICAS=2": RAY,
    "export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH="
    "falsework.server.replicas.proxy:middlewares": RAY,
    "serve run": RAY,
    "serve deploy": RAY,
    "kubectl apply": CLUSTER,
    "make check": CI,
    "make format": "changes files; `make check` finds what it would change",
    "make docs": "changes files; tests/repo/test_architecture.py compares them",
    "make bench": MINUTES,
    ".venv/bin/python bench/runtime.py": MINUTES,
    ".venv/bin/python bench/soak.py": MINUTES,
    ".venv/bin/python bench/neighbours.py": MINUTES,
    ".venv/bin/python bench/replicas.py": "needs Ray, and takes minutes",
    ".venv/bin/python bench/capacity.py": "takes minutes; test_capacity.py simulates less",
    ".venv/bin/python bench/likely.py": MINUTES,
    "make lock": "asks a package index; tests/repo/test_requirements.py compares the lists",
    "falsework prompt": "needs the hub; tests/cli/test_prompt_command.py runs the command",
    "docker build": DOCKER,
    "docker run": DOCKER,
}
"""Commands by how they begin, and why no test runs them."""

SHOWN = {"text": "what a command prints, or a drawing"}
"""Languages of blocks that nobody runs, and what they show."""

RUN_LANGUAGES = {"console", "json", "python", "yaml"}


def reason(command: str) -> str | None:
    return next((why for begin, why in NOT_RUN.items() if is_begun_by(command, begin)), None)


def is_begun_by(command: str, begin: str) -> bool:
    words, first = shlex.split(command), shlex.split(begin)
    whole = first[0] not in {"docker", "falsework", "kubectl", "serve"}
    return words == first if whole else words[: len(first)] == first


def documented() -> list[str]:
    return [command for each in blocks("console") for command in each.commands]


@pytest.mark.parametrize("command", documented())
def test_every_command_is_run_or_has_a_reason(command: str) -> None:
    assert (command in RUN) != (reason(command) is not None)


def test_what_is_run_and_what_is_not_stands_in_the_documents() -> None:
    commands = documented()

    assert [each for each in RUN if each not in commands] == []
    assert [each for each in NOT_RUN if not any(is_begun_by(one, each) for one in commands)] == []


@pytest.mark.parametrize("each", blocks(), ids=str)
def test_every_block_is_of_a_known_kind(each: Block) -> None:
    assert each.language in RUN_LANGUAGES | set(SHOWN)


SECRET = "/run/secrets/analytics"
OTHER = "  - {name: other, http: {url: 'https://other.example/other'}, effect: read}\n"
COMPLETED = {("docs/tools.md", 0): ("tools:\n", f"tools:\n{OTHER}")}
"""Tools files that are shown in part, by document and number: a line, and what takes its place."""

STAGE = {
    "operationId": "setStage",
    "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"stage": {"type": "string"}}}
            }
        }
    },
}
OPENAPI = {
    "openapi": "3.1.0",
    "info": {"title": "CRM", "version": "1"},
    "paths": {"/customers/{id}/stage": {"put": STAGE}},
}
SHAPES = '''
def area(width: float, height: float) -> float:
    """Return the area of a rectangle."""
    return width * height
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the files that the documents' tools files name."""
    (tmp_path / "crm.json").write_text(json.dumps(OPENAPI))
    (tmp_path / "geometry").mkdir()
    (tmp_path / "geometry" / "shapes.py").write_text(SHAPES)
    (tmp_path / "secret").write_text("s3cret")
    return tmp_path


@pytest.mark.parametrize("each", blocks("yaml"), ids=str)
def test_a_tools_file_of_the_documents_is_one(each: Block, folder: Path) -> None:
    same = [one for one in blocks("yaml") if one.document == each.document]
    old, new = COMPLETED.get((each.document, same.index(each)), ("", ""))
    text = each.text.replace(old, new, 1).replace(SECRET, str(folder / "secret"))
    (folder / "tools.yaml").write_text(text)

    command = [str(Path(sys.executable).with_name("falsework")), "tools", "check", "tools.yaml"]
    said = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env={"CRM_TOKEN": "t", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert said.returncode == 0, said.stderr
    assert "nothing is wrong with them" in said.stdout


@pytest.mark.parametrize("each", blocks("json"), ids=str)
def test_json_of_the_documents_can_be_read(each: Block) -> None:
    assert isinstance(json.loads(each.text), dict)


def test_what_the_model_reads_of_a_failed_call_is_what_the_documents_show() -> None:
    shown = json.loads(block("docs/tools.md", "json").text)
    limits = {"attempt_timeout": "50ms", "deadline": "1s", "retry": {"max_attempts": 1}}

    async def fail() -> str:
        async with upstream(hangs) as up, toolbox(write(up, **limits)) as box:
            return (await call(box, name="change")).for_model()

    read = json.loads(anyio.run(fail))
    message = {"message": shown["error"]["message"]}
    assert {**read, "error": {**read["error"], **message}} == shown
    assert read["error"]["message"] == message["message"].replace("2.5 s", "0.05 s")


def test_what_is_printed_behind_a_prompt_is_no_command() -> None:
    text = "$ falsework prompt model request.json\n<|user|>hello\n$ make serve\n"

    commands = Block("a.md", 1, "console", text).commands

    assert commands == ("falsework prompt model request.json", "make serve")


def test_a_block_is_read_with_its_place_and_language() -> None:
    (found,) = blocks_of("a.md", "# A\n\n```console\nmake serve\n```\n\n`x`\n")

    assert (str(found), found.language, found.text) == ("a.md:4", "console", "make serve\n")


def test_commands_are_read_as_they_are_typed() -> None:
    text = "a b   # why\nc -d '{\n  # no comment\n}'\nd \\\n    e\n"

    commands = Block("a.md", 1, "console", text).commands

    assert commands == ("a b", "c -d '{\n  # no comment\n}'", "d \\\n    e")
