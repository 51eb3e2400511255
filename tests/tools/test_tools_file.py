"""The tools file: what is wrong with it is named, and what it doesn't say has a sound default."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.upstream import call as call_tool
from support.upstream import http_tool, toolbox, upstream
from typer.testing import CliRunner

from falsework.server.cli.main import app
from falsework.server.tools.config.loader import ToolsFileError, load_tools_file, parse_tools_file

FIVE_LINES = """
tools:
  - name: get_weather
    description: The weather of a city.
    http: {url: "http://127.0.0.1:9/weather/{city}"}
    parameters: {type: object, properties: {city: {type: string}}, required: [city]}
"""
TOOL = {"name": "t", "http": {"url": "http://x.example/"}}
MCP = {"name": "m", "mcp": {"server": "s"}}


def write(folder: Path, text: str) -> Path:
    file = folder / "tools.yaml"
    file.write_text(text)
    return file


def test_five_lines_are_a_whole_file(tmp_path: Path) -> None:
    (tool,) = load_tools_file(write(tmp_path, FIVE_LINES)).tools

    assert (tool.kind, tool.deadline, tool.retry.max_attempts) == ("http", 8.0, 3)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"tolls": []}, "tolls: no such key. The nearest is 'tools'."),
        (
            {"tools": [{**TOOL, "dedline": 1}]},
            "tools.0.dedline: no such key. The nearest is 'deadline'.",
        ),
        (
            {"tools": [{**TOOL, "retry": {"max_atempts": 1}}]},
            "tools.0.retry.max_atempts: no such key. The nearest is 'max_attempts'.",
        ),
        (
            {"defaults": {"breaker": {"min_call": "1s"}}},
            "defaults.breaker.min_call: no such key. The nearest is 'min_calls'.",
        ),
        (
            {"tools": [{**TOOL, "deadline": "8 parsecs"}]},
            "should be a number and one of ms, s, m, h",
        ),
        ({"tools": [{"name": "t"}]}, "should be exactly one of http, openapi, mcp, python"),
        ({"tools": [{**TOOL, "python": {"callable": "a:b"}}]}, "and is http and python"),
        (
            {"tools": [{**TOOL, "http": {"url": "http://{host}/"}}]},
            "a host that no argument can change",
        ),
        ({"tools": [TOOL, TOOL]}, "two tools are named 't'"),
        ({"tools": [{**TOOL, "requires": ["u"]}]}, "tools.t.requires: there is no tool 'u'."),
        ({"tools": [{**TOOL, "fallback": [{"tool": "u"}]}]}, "there is no tool 'u'"),
        ({"tools": [MCP]}, "tools.m.mcp.server: there is no server 's'."),
        (
            {"tools": [{**TOOL, "parameters": {"type": "objekt"}}]},
            "tools.t.parameters: isn't a JSON",
        ),
        ({"tools": [{**TOOL, "approval": {"when": "a >"}}]}, "isn't a JMESPath expression"),
        ({"servers": {"s": {}}}, "should have either url or command"),
        (
            {"tools": [{**TOOL, "auth": {"type": "bearer", "token": {}}}]},
            "should be either {env: VARIABLE} or {file: PATH}",
        ),
    ],
)
def test_what_is_wrong_is_named(file: dict[str, Any], said: str) -> None:
    with pytest.raises(ToolsFileError) as caught:
        parse_tools_file(file)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tools: []\ntools: []\n", "'tools' comes twice"),
        ("tools:\n  - {name: t, on: 1}\n", "the key on needs quotes"),
        ("- a\n", "should be a mapping"),
        ("tools: [\n", "tools.yaml"),
    ],
)
def test_yaml_that_would_be_misread_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ToolsFileError) as caught:
        load_tools_file(write(tmp_path, text))

    assert said in str(caught.value)


def test_defaults_stand_under_every_tool_and_a_tool_may_differ() -> None:
    other = {**TOOL, "name": "u", "retry": {"base": "1s"}, "deadline": "1s"}
    defaults = {"deadline": "5s", "retry": {"max_attempts": 2}}

    first, second = parse_tools_file({"defaults": defaults, "tools": [TOOL, other]}).tools

    assert (first.deadline, first.retry.max_attempts) == (5, 2)
    assert (second.deadline, second.retry.max_attempts, second.retry.base) == (1, 2, 1)


def test_parameters_may_be_those_of_another_tool() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    reference = {"$ref": "#/tools/t/parameters"}

    _, second = parse_tools_file(
        {
            "tools": [
                {**TOOL, "parameters": parameters},
                {**TOOL, "name": "u", "parameters": reference},
            ]
        }
    ).tools

    assert second.parameters == parameters


def test_check_prints_the_policies_that_hold(tmp_path: Path) -> None:
    file = write(tmp_path, FIVE_LINES)

    done = CliRunner().invoke(app, ["tools", "check", str(file)])

    assert done.exit_code == 0
    assert "get_weather (http, http://127.0.0.1:9)" in done.output
    assert "effect: read" in done.output
    assert "max_attempts: 3" in done.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tools: [{name: t, http: {ulr: x}}]", "The nearest is 'url'"),
        ('tools: [{name: t, python: {callable: "nowhere:f"}}]', "there is no nowhere:f"),
        (
            (
                'tools: [{name: t, http: {url: "http://x.example/"}, '
                "auth: {type: bearer, token: {env: NOT_THERE}}}]"
            ),
            "the environment has no NOT_THERE",
        ),
    ],
)
def test_check_says_what_is_wrong_and_exits_with_2(tmp_path: Path, text: str, said: str) -> None:
    done = CliRunner().invoke(app, ["tools", "check", str(write(tmp_path, text))])

    assert done.exit_code == 2
    assert said in done.output


def test_a_tool_is_called_by_hand_with_a_trace(tmp_path: Path) -> None:
    text = (
        'tools: [{name: double, python: {callable: "support.python_tools:double"}, effect: pure, '
        "parameters: {type: object}}]"
    )
    file = write(tmp_path, text)

    done = CliRunner().invoke(
        app, ["tools", "call", "double", '{"number": 4}', "--tools", str(file)]
    )

    assert done.exit_code == 0, done.output
    assert done.stdout == "8\n"
    assert "attempt 1 took" in done.stderr


def test_an_operation_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "crm.json").write_text(
        json.dumps({"paths": {"/c": {"patch": {"operationId": "updateCustomer"}}}})
    )
    text = (
        "tools: [{name: t, openapi: {document: crm.json, operation: update, "
        'base_url: "http://x.example"}}]'
    )

    done = CliRunner().invoke(app, ["tools", "check", str(write(tmp_path, text))])

    assert "has no operation 'update'. There is: updateCustomer" in done.output


@pytest.mark.anyio
async def test_arguments_cannot_leave_their_segment_of_a_path() -> None:
    async with upstream() as up:
        tool = http_tool(up, path="/a/{id}/c")
        tool["parameters"] = {"type": "object"}
        async with toolbox(tool) as box:
            await call_tool(box, '{"id": "../../secret?x=1#y"}')
            refused = [await call_tool(box, text) for text in ('{"id": ".."}', '{"id": ""}')]

    assert [seen.path for seen in up.seen] == ["/a/..%2F..%2Fsecret%3Fx%3D1%23y/c"]
    assert not any(outcome.ok for outcome in refused)


@pytest.mark.anyio
async def test_an_argument_in_the_query_of_a_url_may_be_empty() -> None:
    async with upstream() as up:
        tool = http_tool(up, path="/a?q={id}")
        tool["parameters"] = {"type": "object"}
        async with toolbox(tool) as box:
            await call_tool(box, '{"id": ""}')

    assert [seen.path for seen in up.seen] == ["/a?q="]


@pytest.mark.anyio
async def test_secrets_reach_the_upstream_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_TESTS", "hunter2")
    auth = {"type": "bearer", "token": {"env": "TOKEN_OF_TESTS"}}
    async with upstream() as up, toolbox(http_tool(up, auth=auth)) as box:
        outcome = await call_tool(box)
        shown = repr(box.tools["look"].entry) + outcome.for_model()

    assert up.seen[0].headers["authorization"] == "Bearer hunter2"
    assert "hunter2" not in shown


SERVES = """
import sys, anyio
from pathlib import Path
from falsework.server.tools.config.loader import load_tools_file
from falsework.server.tools.registry import open_registry

async def serve(path):
    async with open_registry(load_tools_file(path), path.parent) as registry:
        print(*registry.tools)

anyio.run(serve, Path(sys.argv[1]))
"""
"""Opens a tools file as `serve` does."""

CHECKS = """
import sys
from falsework.server.cli.main import app
app(["tools", "check", sys.argv[1]])
"""


@pytest.mark.parametrize("program", [SERVES, CHECKS], ids=["serve", "check"])
@pytest.mark.parametrize(
    ("beside", "status"), [(True, 0), (False, 1)], ids=["beside the file", "in the working folder"]
)
def test_functions_are_looked_for_in_the_folder_of_the_tools_file(
    program: str, *, beside: bool, status: int, tmp_path: Path
) -> None:
    tools, elsewhere = tmp_path / "tools", tmp_path / "elsewhere"
    tools.mkdir()
    elsewhere.mkdir()
    file = write(tools, 'tools: [{name: f, python: {callable: "functions_of_a_test:f"}}]')
    module = (tools if beside else elsewhere) / "functions_of_a_test.py"
    module.write_text("def f() -> int:\n    return 1\n")

    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(file)],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )

    assert bool(done.returncode) == bool(status), done.stderr
    assert ("there is no functions_of_a_test:f" in done.stderr) == bool(status)
