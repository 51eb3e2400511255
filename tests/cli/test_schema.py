"""`falsework schema check`: JSON lines, a table, tool lists, OpenAI's strict rules, exit status."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from falsework.server.cli.main import app

PERSON = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}}


def check(*options: str, lines: list[Any] | None = None) -> Result:
    said = "\n".join(json.dumps(line) for line in lines or [])
    return CliRunner().invoke(app, ["schema", "check", *options], input=said)


def reports(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.output.splitlines()]


def test_each_line_is_answered_with_how_it_is_served_and_what_can_be_said() -> None:
    result = check("--json", lines=[{"schema": PERSON, "instances": [{"age": 1}, {"age": -1}]}])

    (report,) = reports(result)
    assert (report["accepted"], report["how"], report["admitted"]) == (
        True,
        "automaton",
        [True, False],
    )
    assert result.exit_code == 0


def test_a_refused_schema_has_keyword_pointer_and_hint_and_fails_the_run() -> None:
    result = check("--json", lines=[{"schema": {"items": {"$ref": "http://a.b/c"}}}])

    (report,) = reports(result)
    assert (report["how"], report["keyword"], report["pointer"]) == (
        "refused",
        "$ref",
        "/items/$ref",
    )
    assert report["hint"]
    assert result.exit_code == 1


def test_a_file_and_a_folder_are_read_into_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(PERSON))
    (tmp_path / "b.yaml").write_text("type: array\nuniqueItems: true\n")

    result = check(str(tmp_path))

    assert "2 schemas: 1 automaton, 1 checked" in result.output
    assert result.exit_code == 0


def test_tool_lists_mcp_listings_and_openapi_documents_are_read() -> None:
    tool = {"type": "function", "function": {"name": "one", "parameters": PERSON}}
    listing = {"result": {"tools": [{"name": "two", "inputSchema": PERSON}]}}
    operation = {
        "operationId": "three",
        "parameters": [
            {"name": "q", "in": "query", "required": True, "schema": {"type": "string"}}
        ],
    }
    document = {"openapi": "3.0.0", "paths": {"/a": {"get": operation}}}  # fmt: skip

    result = check("--tools", "--json", lines=[[tool], listing, document])

    assert [report["name"] for report in reports(result)] == ["one", "two", "three"]
    assert result.exit_code == 0


def test_openai_s_strict_rules_name_what_to_write_instead() -> None:
    result = check("--openai-strict", "--json", lines=[{"schema": PERSON}])

    (report,) = reports(result)
    assert report["keyword"] == "additionalProperties"
    assert result.exit_code == 1


def test_what_is_no_json_is_told_with_its_line() -> None:
    result = CliRunner().invoke(app, ["schema", "check"], input="{}\n{")

    assert result.exit_code == 2
