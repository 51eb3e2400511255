"""A tool that is one operation of an OpenAPI document: the document says what the request is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from falsework.runtime.entries import Http, OpenApi
from falsework.runtime.executors.base import Described
from falsework.runtime.executors.http import HttpExecutor
from falsework.runtime.toolsfile import BadToolsFile

Json = dict[str, Any]

METHODS = ("get", "put", "post", "delete", "head", "patch")
DEEPEST = 20


class OpenApiExecutor(HttpExecutor):
    """Sends the operation's request."""

    described: Described

    async def describe(self) -> Described:
        """Return what the document says of the operation."""
        return self.described


def operation(asked: OpenApi, folder: Path) -> tuple[Http, Described]:
    """Return an operation's request and its description; raise BadToolsFile."""
    document = _document(folder / asked.document.removeprefix("file://"))
    path, method, found, shared = _found(document, asked)
    base = asked.base_url or next((one["url"] for one in document.get("servers", [])), "")
    if not base.startswith(("http://", "https://")):
        raise BadToolsFile(f"{asked.document}: has no absolute server URL; give base_url")
    places = [_inlined(one, document) for one in [*shared, *found.get("parameters", [])]]
    body = _body(_inlined(found.get("requestBody", {}), document))
    fields = {one["name"]: _field(one) for one in places}
    flat = body is not None and body.get("type", "object") == "object" and "properties" in body
    in_body: Json = dict(body["properties"]) if body and flat else {"body": body} if body else {}
    if clash := fields.keys() & in_body.keys():
        raise BadToolsFile(f"{asked.operation}: '{clash.pop()}' stands in two places")
    required = [one["name"] for one in places if one.get("required")]
    required += (body or {}).get("required", []) if flat else list(in_body)
    parameters: Json = {
        "type": "object",
        "properties": {**fields, **in_body},
        "required": required,
        "additionalProperties": False,
    }
    by_place = {kind: {one["name"]: "{" + one["name"] + "}" for one in places if one["in"] == kind}
                for kind in ("query", "header")}  # fmt: skip
    request = Http(
        url=base.rstrip("/") + path,
        method=method.upper(),  # type: ignore[arg-type]  # one of METHODS
        query=by_place["query"],
        headers=by_place["header"],
        body=None if flat or body is None else "{body}",
    )
    text = found.get("description") or found.get("summary") or ""
    return request, Described(text, parameters)


def _document(path: Path) -> Json:
    try:
        text = path.read_text("utf-8")
        read = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise BadToolsFile(f"{path}: {fault}") from fault
    if not isinstance(read, dict) or "paths" not in read:
        raise BadToolsFile(f"{path}: isn't an OpenAPI document")
    return read


def _found(document: Json, asked: OpenApi) -> tuple[str, str, Json, list[Json]]:
    known = []
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                known.append(item[method].get("operationId", ""))
                if known[-1] == asked.operation:
                    return path, method, item[method], item.get("parameters", [])
    there = ", ".join(filter(None, known))
    raise BadToolsFile(f"{asked.document}: has no operation '{asked.operation}'. There is: {there}")


def _field(place: Json) -> Json:
    schema = dict(place.get("schema", {}))
    return {"description": place["description"], **schema} if "description" in place else schema


def _body(request: Mapping[str, Any]) -> Json | None:
    content = request.get("content", {})
    schema: Json | None = next(
        (one.get("schema") for kind, one in content.items() if "json" in kind), None
    )
    return schema


def _inlined(part: Any, document: Json, depth: int = 0) -> Any:
    """Return a part of the document with its references resolved; raise BadToolsFile."""
    if depth > DEEPEST:
        raise BadToolsFile("the operation's schema refers to itself, which can't be enforced")
    if isinstance(part, list):
        return [_inlined(each, document, depth + 1) for each in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if not isinstance(reference, str):
        return {key: _inlined(value, document, depth + 1) for key, value in part.items()}
    there: Any = document
    for step in reference.removeprefix("#/").split("/"):
        there = there.get(step.replace("~1", "/").replace("~0", "~"), {})
    return _inlined(there, document, depth + 1)
