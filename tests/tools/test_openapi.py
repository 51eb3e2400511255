"""Operations of OpenAPI documents: every name has its place, and what has none is refused."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from support.upstream import Json, call, kind, toolbox, upstream

from falsework.server.tools.config.loader import ToolsFileError
from falsework.server.tools.config.schema import OpenApiTool
from falsework.server.tools.executors.openapi import load_operation

pytestmark = pytest.mark.anyio

TEXT = {"type": "string"}
SERVER = {"url": "http://127.0.0.1:9"}


def parameter(name: str, place: str, **fields: Any) -> Json:
    return {"name": name, "in": place, "schema": TEXT, **fields}


def document(folder: Path, *parameters: Json, path: str = "/c", **fields: Any) -> Path:
    """Write a document whose one operation is `op`."""
    servers = fields.pop("servers", [SERVER])
    found = {"operationId": "op", "parameters": list(parameters), **fields}
    written = folder / "api.json"
    written.write_text(json.dumps({"servers": servers, "paths": {path: {"post": found}}}))
    return written


def described(written: Path) -> Any:
    return load_operation(OpenApiTool(document=str(written), operation="op"), Path())


NAMED = [
    parameter("customer-id", "path", required=True),
    parameter("X-Trace", "header"),
    parameter("page.size", "query"),
    parameter("filter[a]", "query"),
    parameter("Authorization", "header"),
    parameter("crumb", "cookie"),
]


@pytest.mark.parametrize(
    ("given", "query", "trace"),
    [
        ({}, {}, None),
        ({"X-Trace": "t"}, {}, "t"),
        ({"page.size": "3"}, {"page.size": "3"}, None),
        ({"filter[a]": "q", "X-Trace": "t"}, {"filter[a]": "q"}, "t"),
    ],
)
async def test_every_name_stands_in_its_place_and_no_other(
    given: Json, query: Json, trace: str | None, tmp_path: Path
) -> None:
    fields = {"type": "object", "properties": {"place_0": TEXT}}
    body = {"content": {"application/json": {"schema": fields}}}
    written = document(tmp_path, *NAMED, path="/c/{customer-id}", requestBody=body)
    async with upstream() as up:
        entry = {"document": str(written), "operation": "op", "base_url": up.url}
        async with toolbox({"name": "look", "openapi": entry}) as box:
            arguments = {"customer-id": "a/b", "place_0": "x", **given}
            assert (await call(box, json.dumps(arguments))).ok
            assert kind(await call(box, '{"customer-id": "1", "crumb": "c"}')) == (
                "invalid_arguments"
            )

    (seen,) = up.seen
    path, _, asked = seen.path.partition("?")
    assert (path, dict(parse_qsl(asked))) == ("/c/a%2Fb", query)
    assert (json.loads(seen.body), seen.headers.get("x-trace")) == ({"place_0": "x"}, trace)


@pytest.mark.parametrize(("given", "sent"), [({"body": ["x"]}, b'["x"]'), ({}, b"")])
async def test_a_body_that_is_no_object_is_one_argument_and_may_be_optional(
    given: Json, sent: bytes, tmp_path: Path
) -> None:
    body = {"content": {"application/json": {"schema": {"type": "array"}}}}
    written = document(tmp_path, requestBody=body)
    async with upstream() as up:
        entry = {"document": str(written), "operation": "op", "base_url": up.url}
        async with toolbox({"name": "look", "openapi": entry}) as box:
            assert (await call(box, json.dumps(given))).ok

    assert up.seen[0].body == sent


def test_a_servers_variables_are_at_their_defaults(tmp_path: Path) -> None:
    variables = {"tenant": {"default": "acme"}}
    server = {"url": "https://{tenant}.example/v1/", "variables": variables}

    found = described(document(tmp_path, servers=[server]))

    assert found.request.url == "https://acme.example/v1/c"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"servers": [{"url": "https://{tenant}.example"}]}, "the server URL has variables"),
        ({"servers": [{"url": "/v1"}]}, "has no absolute server URL"),
        ({"servers": []}, "has no absolute server URL"),
        ({"path": "/c/{id}"}, "the path's 'id' is no parameter"),
        ({"requestBody": {"$ref": "#/components/x"}}, "'#/components/x', which isn't in it"),
        ({"requestBody": {"$ref": "other.json#/x"}}, "'other.json#/x', which isn't in it"),
    ],
)
def test_what_makes_no_request_is_refused_in_words(fields: Json, said: str, tmp_path: Path) -> None:
    with pytest.raises(ToolsFileError, match=said):
        described(document(tmp_path, **fields))


def test_a_name_that_stands_in_two_places_is_refused(tmp_path: Path) -> None:
    twice = [parameter("id", "query"), parameter("id", "header")]
    with pytest.raises(ToolsFileError, match="'id' stands in two places"):
        described(document(tmp_path, *twice))


def op(schema: Json, schemas: Json, version: str = "3.1.0") -> Json:
    """Return a document whose operation `op` has a JSON body of that schema."""
    body = {"content": {"application/json": {"schema": schema}}, "required": True}
    found = {"operationId": "op", "requestBody": body}
    return {
        "openapi": version,
        "servers": [SERVER],
        "paths": {"/c": {"post": found}},
        "components": {"schemas": schemas},
    }


def parameters_of(folder: Path, document: Json) -> Any:
    written = folder / "api.json"
    written.write_text(json.dumps(document))
    return described(written).description.parameters["properties"]


@pytest.mark.parametrize(
    ("version", "siblings", "expected"),
    [
        ("3.1.0", {"description": "Ours."}, {**TEXT, "description": "Ours."}),
        ("3.1.0", {"maxLength": 3}, {**TEXT, "maxLength": 3}),
        ("3.1.0", {"type": ["string"]}, {"allOf": [TEXT, {"type": ["string"]}]}),
        ("3.0.3", {"maxLength": 3}, TEXT),  # where the standard says that siblings are ignored
    ],
)
def test_what_stands_beside_a_reference_holds_as_the_documents_version_says(
    version: str, siblings: Json, expected: Json, tmp_path: Path
) -> None:
    schema = {"properties": {"a": {"$ref": "#/components/schemas/Text", **siblings}}}

    assert parameters_of(tmp_path, op(schema, {"Text": TEXT}, version)) == {"a": expected}


def test_a_reference_through_escaped_steps_finds_its_target(tmp_path: Path) -> None:
    schema = {"properties": {"a": {"$ref": "#/components/schemas/a~1b%20~0c"}}}

    assert parameters_of(tmp_path, op(schema, {"a/b ~c": TEXT})) == {"a": TEXT}


def test_a_schema_may_be_nested_deeply_and_used_twice_but_not_inside_itself(tmp_path: Path) -> None:
    deep: Json = {"$ref": "#/components/schemas/Text"}
    for _ in range(30):
        deep = {"type": "array", "items": deep}
    twice = {"properties": {"a": deep, "b": {"$ref": "#/components/schemas/Text"}}}
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}

    assert parameters_of(tmp_path, op(twice, {"Text": TEXT}))["b"] == TEXT
    with pytest.raises(ToolsFileError, match="'#/components/schemas/Node' refers to itself"):
        parameters_of(tmp_path, op(node, {"Node": node}))


def test_a_path_may_be_a_reference(tmp_path: Path) -> None:
    document = op({"properties": {"a": TEXT}}, {})
    document["components"]["pathItems"] = {"c": document["paths"]["/c"]}
    document["paths"]["/c"] = {"$ref": "#/components/pathItems/c"}

    assert parameters_of(tmp_path, document) == {"a": TEXT}


DOCUMENT = {
    "openapi": "3.1.0",
    "paths": {
        "/customers/{id}": {
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
            ],
            "patch": {
                "operationId": "updateCustomer",
                "summary": "Update a customer.",
                "parameters": [{"name": "dry", "in": "query", "schema": {"type": "boolean"}}],
                "requestBody": {
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Fields"}}
                    }
                },
            },
        }
    },
    "components": {
        "schemas": {
            "Fields": {
                "type": "object",
                "properties": {"stage": {"enum": ["won", "lost"]}},
                "required": ["stage"],
            }
        }
    },
}


async def test_an_operation_of_an_openapi_document_is_a_tool(tmp_path: Path) -> None:
    document = tmp_path / "crm.json"
    document.write_text(json.dumps(DOCUMENT))
    async with upstream() as up:
        openapi = {"document": str(document), "operation": "updateCustomer", "base_url": up.url}
        async with toolbox({"name": "update", "openapi": openapi}) as box:
            outcome = await call(box, '{"id": 7, "stage": "won", "dry": true}', "update")
            tool = box.tools["update"]

    (seen,) = up.seen
    assert (outcome.ok, tool.entry.effect, tool.description) == (
        True,
        "write",
        "Update a customer.",
    )
    assert (seen.method, seen.path) == ("PATCH", "/customers/7?dry=true")
    assert json.loads(seen.body) == {"stage": "won"}
