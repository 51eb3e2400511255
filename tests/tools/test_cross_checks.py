"""A tools file whose parts can't all be meant is refused, and the part is named."""

from pathlib import Path
from typing import Any

import pytest
from support.upstream import Json, Upstream, call, http_tool, kind, run, says, toolbox, upstream
from typer.testing import CliRunner

from falsework.server.cli.main import app
from falsework.server.tools.config.loader import ToolsFileError, load_tools_file, parse_tools_file
from falsework.server.tools.config.schema import McpServerConfig
from falsework.server.tools.registry import open_registry
from falsework.server.tools.tool_call import ToolCall

TOOL: Json = {"name": "t", "http": {"url": "http://x.example/"}}
OTHER: Json = {**TOOL, "name": "u"}
PYTHON: Json = {"name": "p", "python": {"callable": "support.python_tools:double"}}
ONE: Json = {"type": "object", "properties": {"a": {"type": "string"}}}
SERVER: Json = {"command": ["python", "x.py"], "tools": ["a"]}
SECRET = {"env": "A"}


def tools(*entries: Json) -> Json:
    return {"tools": list(entries)}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (tools({**TOOL, "http": {"url": "http://x.example/{a}"}}), "t.http.url: '{a}' is no param"),
        (
            tools({**TOOL, "parameters": ONE, "http": {**TOOL["http"], "query": {"q": ["{b}"]}}}),
            "tools.t.http.query: '{b}' is no parameter",
        ),
        (
            tools({**TOOL, "parameters": ONE, "http": {**TOOL["http"], "headers": {"h": "x{b}"}}}),
            "tools.t.http.headers: '{b}' is no parameter",
        ),
        (
            tools({**TOOL, "parameters": ONE, "http": {**TOOL["http"], "body": {"x": {"y": "{"}}}}),
            "tools.t.http.body: isn't a template",
        ),
        (
            tools(
                {
                    **TOOL,
                    "parameters": ONE,
                    "verify": {"tool": "u", "arguments": {"x": "{b}"}, "matches": "result"},
                },
                OTHER,
            ),
            "tools.t.verify.arguments: '{b}' is no parameter",
        ),
        (tools({**TOOL, "retry": {"retry_on": ["timeoutt"]}}), "should be one of connect, timeout"),
        (tools({**TOOL, "retry": {"retry_on": [999]}}), "or a status from 400 on"),
        (tools({**TOOL, "fallback": [{}]}), "should be exactly one of tool, stale and value"),
        (
            tools({**TOOL, "fallback": [{"tool": "u", "value": 1}]}, OTHER),
            "should be exactly one of tool, stale and value",
        ),
        (tools({**TOOL, "fallback": [{"stale": True}]}), "t.fallback.stale: needs cache.stale_if"),
        (tools({**TOOL, "requires": ["t"]}), "tools.t.requires: goes in a circle: t, t."),
        (
            tools({**TOOL, "fallback": [{"tool": "u"}]}, {**OTHER, "fallback": [{"tool": "t"}]}),
            "fallback: goes in a circle",
        ),
        (
            {"servers": {"s": {**SERVER, "fallback": [{"tool": "v"}]}}},
            "servers.s.fallback.tool: there is no tool 'v'",
        ),
        (
            {"servers": {"s": {**SERVER, "verify": {"tool": "v", "matches": "result"}}}},
            "servers.s.verify.tool: there is no tool 'v'",
        ),
        (
            {"servers": {"s": {**SERVER, "fallback": [{"tool": "s__a"}]}}},
            "tools.s__a.fallback: goes in a circle",
        ),
        (tools({**PYTHON, "idempotency": {}}), "tools.p.idempotency: a tool of kind python"),
        ({"servers": {"s": {**SERVER, "idempotency": {}}}}, "servers.s.idempotency"),
        ({"servers": {"s": {"urll": "x"}}}, "servers.s.urll: no such key. The nearest is 'url'."),
        (
            tools({**TOOL, "auth": {"type": "bearer", "tokn": SECRET}}),
            "tools.0.auth.bearer.tokn: no such key. The nearest is 'token'.",
        ),
        (
            tools({**TOOL, "auth": {"type": "bearer", "token": {"envv": "A"}}}),
            "tools.0.auth.bearer.token.envv: no such key. The nearest is 'env'.",
        ),
        (tools({**TOOL, "deadline": True}), "should be a number and one of ms, s, m, h"),
    ],
)
def test_what_a_file_says_against_itself_is_named(file: Json, said: str) -> None:
    with pytest.raises(ToolsFileError) as caught:
        parse_tools_file(file)

    assert said in str(caught.value)


def test_names_are_asked_for_only_where_the_parameters_have_names() -> None:
    free = {**TOOL, "http": {"url": "http://x.example/{a}"}, "parameters": {"type": "object"}}

    assert len(parse_tools_file(tools(free)).tools) == 1


WRITE: Json = {**OTHER, "http": {"url": "http://x.example/", "method": "POST"}}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{**WRITE, "hedge": {}}], "tools.u.hedge: this tool writes"),
        (
            [{**PYTHON, "python": {"callable": "support.python_tools:double", "run_in": "thread"}}],
            "tools.p.python.run_in: this tool writes",
        ),
        (
            [{**WRITE, "name": "w", "verify": {"tool": "u", "matches": "result"}}, WRITE],
            "tools.w.verify.tool: 'u' writes",
        ),
        ([{**TOOL, "fallback": [{"tool": "u"}]}, WRITE], "tools.t.fallback.tool: 'u' writes"),
        (
            [TOOL, {**OTHER, "breaker": {"min_calls": 2}}],
            "tools.u.breaker: 't' says otherwise, and both reach http://x.example.",
        ),
        (
            [{**TOOL, "retry_budget": {"burst": 3}}, OTHER],
            "tools.u.retry_budget: 't' says otherwise",
        ),
    ],
)
async def test_what_an_effect_forbids_is_named(entries: list[Json], said: str) -> None:
    with pytest.raises(ToolsFileError) as caught:
        async with toolbox(*entries):
            pass

    assert said in str(caught.value)


def test_merge_keys_of_yaml_bring_what_they_name(tmp_path: Path) -> None:
    file = tmp_path / "tools.yaml"
    file.write_text(
        "tools:\n"
        '  - &first\n    name: t\n    deadline: 1s\n    http: {url: "http://x.example/"}\n'
        "  - &second\n    <<: *first\n    name: u\n"
        "  - <<: *second\n    name: v\n    deadline: 2s\n"
    )

    entries = load_tools_file(file).tools

    assert [(each.name, each.deadline) for each in entries] == [("t", 1), ("u", 1), ("v", 2)]


def test_check_prints_what_follows_from_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "tools.yaml"
    file.write_text(
        'tools:\n  - {name: t, http: {url: "https://x.example/", method: POST}, '
        "effect: destructive}\n"
        '  - {name: p, python: {callable: "support.python_tools:double"}, effect: pure}\n'
    )

    done = CliRunner().invoke(app, ["tools", "check", str(file)])

    assert done.exit_code == 0, done.output
    for line in ("on_cancel: finish", "on_cancel: cancel", "run_in: thread", "- x.example",
                 "deny_private: true", "require_tls: true", "approval: {}"):  # fmt: skip
        assert line in done.output


@pytest.mark.anyio
async def test_the_tools_of_an_mcp_server_reach_what_it_may() -> None:
    server = McpServerConfig(url="https://mcp.example/", tools=("a",))
    async with open_registry() as box:
        await box.add_server("s", server)
        tool = box.tools["s__a"]

    assert box.egress[tool.upstream.name].hosts == {"mcp.example"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, "approval_required"), ({"approval": "never"}, "ok"),
     ({"approval": {"when": "args.id > `10`"}}, "ok")],
)  # fmt: skip
async def test_what_is_destructive_waits_for_a_person_unless_the_file_says_never(
    fields: Json, expected: str
) -> None:
    async with upstream() as up:
        tool = http_tool(up, method="POST", effect="destructive", **fields)
        async with toolbox(tool) as box:
            outcome = await call(box, '{"id": 1}')

    assert kind(outcome) == expected


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("when", "arguments"),
    [
        ("args.amount > `100`", '{"amount": "1000000"}'),
        ("args.amount > `100`", "{}"),
        ("contains(args.tags, 'x')", "{}"),
        ("args.tags", '{"tags": ["x"]}'),
    ],
)
async def test_a_condition_that_is_not_false_asks_a_person(when: str, arguments: str) -> None:
    async with upstream() as up:
        tool = http_tool(up, approval={"when": when}, parameters={"type": "object"})
        async with toolbox(tool) as box:
            outcome = await call(box, arguments)

    assert (kind(outcome), up.seen) == ("approval_required", [])


@pytest.mark.anyio
@pytest.mark.parametrize(("fallback", "expected"), [
    ({"value": None}, "precondition_failed"), ({"tool": "replica"}, "ok"),
])  # fmt: skip
async def test_a_constant_is_no_success_that_another_tool_may_rely_on(
    fallback: Json, expected: str
) -> None:
    nowhere, retry = Upstream(port=9), {"max_attempts": 1}
    async with upstream(always=says(1)) as up:
        first = http_tool(nowhere, retry=retry, fallback=[fallback])
        others: list[Any] = [http_tool(up, "replica"), http_tool(up, "third", requires=["look"])]
        async with toolbox(first, *others) as box:
            chain = run(box)
            (looked,) = await chain.execute([ToolCall("1", "look", "{}")])
            (third,) = await chain.execute([ToolCall("2", "third", "{}")])

    assert (looked.degraded, kind(third)) == (True, expected)
