"""Which tools a request allows, and which of them need approval: all that it says is honoured."""

import json
from pathlib import Path

import pytest
from support.chat_bodies import Json, refusal
from support.clients import HELLO, sent
from support.response_bodies import ADD, FILE, SUMS, made, responding
from support.scripted_app import calls, scaffold_of

from falsework.server.api.chat.schema import parse
from falsework.server.api.tool_filters import RequireApproval, ToolFilter
from falsework.server.generation.turn import TurnBuilder

SERVER = FILE["servers"]["sums"]
WRITING: Json = {"servers": {"sums": {**SERVER, "tools": ["add", "refuse"], "effect": "write"}}}
READING: Json = {"servers": {"sums": {**SERVER, "tools": ["add", "refuse"], "effect": "read"}}}
RENAMED: Json = {
    "servers": {"sums": {"command": SERVER["command"]}},
    "tools": [{"name": "score", "effect": "write", "mcp": {"server": "sums", "tool": "add"}}],
}


@pytest.fixture(scope="module")
def scaffold(smollm2: Path) -> TurnBuilder:
    return scaffold_of(smollm2)


def kinds(scaffold: TurnBuilder, file: Json, said: str = ADD, **fields: Json | str) -> list[str]:
    """Return what the response consists of, its listing aside."""
    tool = {"type": "mcp", "server_label": "sums", **fields}
    with responding(scaffold, said, "Five.", file=file) as house:
        return [item.type for item in made(house, tools=[tool]).output[1:]]


@pytest.mark.parametrize(
    ("approval", "reads", "writes"),
    [
        ("always", True, True),
        ("never", False, False),
        ({"always": {"read_only": False}}, False, True),
        ({"always": {"read_only": True}}, True, False),
        ({"never": {"read_only": True}}, False, True),
        ({"never": {"tool_names": ["add"]}}, False, False),
        ({"never": {"tool_names": ["refuse"]}}, True, True),
        ({"always": {"tool_names": ["add"], "read_only": False}}, False, True),
        ({"always": {"read_only": False}, "never": {"tool_names": ["add"]}}, False, True),
    ],
)
def test_approval_is_asked_for_as_the_request_says(
    approval: Json | str, *, reads: bool, writes: bool
) -> None:
    tool = {"type": "mcp", "server_label": "sums", "require_approval": approval}
    (asked,) = parse(json.dumps({**HELLO, "tools": [tool]}).encode()).tools or []

    assert asked.require_approval is not None
    assert reads == asked.require_approval.requires_approval("add", read_only=True, otherwise=False)
    assert writes == asked.require_approval.requires_approval(
        "add", read_only=False, otherwise=False
    )


def test_what_no_filter_names_needs_approval_where_the_request_brought_the_server() -> None:
    only = RequireApproval(always=ToolFilter(tool_names=["refuse"]))

    assert only.requires_approval("add", read_only=False, otherwise=True)
    assert not only.requires_approval("add", read_only=False, otherwise=False)


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("require_approval", "Always", ""),
        ("require_approval", "sometimes", ""),
        ("require_approval", {}, ""),
        ("require_approval", {"alway": {"tool_names": ["add"]}}, ".alway"),
        ("require_approval", {"always": 5}, ".always"),
        ("require_approval", {"never": {}}, ".never"),
        ("require_approval", {"always": {"names": ["add"]}}, ".always.names"),
        ("require_approval", {"always": {"read_only": "yes"}}, ".always.read_only"),
        ("allowed_tools", {"tool_names": 5}, ".tool_names"),
        ("allowed_tools", {"tools": ["add"]}, ".tools"),
        ("allowed_tools", "add", ""),
    ],
)
def test_a_filter_that_is_not_understood_is_refused_by_name(
    field: str, value: Json | str, where: str
) -> None:
    tool = {"type": "mcp", "server_label": "sums", field: value}

    assert refusal(tools=[tool]).param == f"tools[0].{field}{where}"


def test_what_only_reads_is_allowed_and_runs_without_approval(scaffold: TurnBuilder) -> None:
    only = {"read_only": True}

    reading = kinds(scaffold, READING, allowed_tools=only, require_approval={"never": only})
    writing = kinds(scaffold, WRITING, allowed_tools=only)

    assert reading == ["mcp_call", "message"]
    assert "mcp_call" not in writing


def test_a_write_waits_where_only_reads_never_need_approval(scaffold: TurnBuilder) -> None:
    never = {"never": {"read_only": True}}

    assert kinds(scaffold, WRITING, require_approval=never) == ["mcp_approval_request"]


def test_a_response_refuses_a_filter_too(scaffold: TurnBuilder) -> None:
    tool = {**SUMS, "require_approval": "Always"}
    with responding(scaffold, ADD, file=FILE) as house:
        reply = sent(house, "POST", "/v1/responses", {**HELLO, "input": "?", "tools": [tool]})

    assert (reply.status, reply.error["param"]) == (400, "tools[0].require_approval")


def test_a_tool_that_is_asked_for_by_name_waits_for_approval_too(scaffold: TurnBuilder) -> None:
    tool = {"type": "server_tool", "name": "sums__add", "require_approval": "always"}
    with responding(scaffold, ADD, file=FILE) as house:
        assert made(house, tools=[tool]).output[-1].type == "mcp_approval_request"


def test_the_name_in_the_listing_is_the_name_for_filters(scaffold: TurnBuilder) -> None:
    said = calls(("score", '{"a": 2, "b": 3}'))
    approval = {"always": {"tool_names": ["score"]}}
    with responding(scaffold, said, "Five.", file=RENAMED) as house:
        reply = made(house, tools=[{**SUMS, "allowed_tools": ["score"]}])
        unlisted = sent(
            house, "POST", "/v1/responses",
            {**HELLO, "input": "?", "tools": [{**SUMS, "allowed_tools": ["add"]}]},
        )  # fmt: skip

    assert [tool.name for tool in reply.output[0].tools] == ["score"]
    assert reply.output[1].output == '{"result":5}'
    assert unlisted.status == 400
    assert kinds(scaffold, RENAMED, said, require_approval=approval) == ["mcp_approval_request"]
