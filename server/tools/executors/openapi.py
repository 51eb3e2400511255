"""A tool that is one operation of an OpenAPI document: the document says what the request is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import httpx2
import yaml

from falsework.server.tools.config.loader import ToolsFileError
from falsework.server.tools.config.schema import HttpTool, OpenApiTool
from falsework.server.tools.executors.base import AttemptContext, ToolDescription
from falsework.server.tools.executors.http import HttpExecutor

Json = dict[str, Any]

METHODS = ("get", "put", "post", "delete", "head", "patch")
RESERVED = frozenset({"accept", "authorization", "content-type"})
MAX_REF_DEPTH = 20


@dataclass(frozen=True)
class Operation:
    """An operation's request, and the placeholder in it of each argument."""

    request: HttpTool
    described: ToolDescription
    places: Mapping[str, str]


class OpenApiExecutor(HttpExecutor):
    """Sends the operation's request."""

    def __init__(
        self, found: Operation, client: httpx2.AsyncClient, key_header: str | None
    ) -> None:
        super().__init__(found.request, client, key_header)
        self._found = found

    async def describe(self) -> ToolDescription:
        """Return what the document says of the operation."""
        return self._found.described

    async def execute(self, arguments: Json, ticket: AttemptContext) -> Any:
        """Return the response's JSON, or its text."""
        places = self._found.places
        placed = {places.get(name, name): value for name, value in arguments.items()}
        return await super().execute(placed, ticket)


def load_operation(asked: OpenApiTool, folder: Path) -> Operation:
    """Return an operation; raise BadToolsFile."""
    document = _document(folder / asked.document.removeprefix("file://"))
    path, method, found, shared = _found(document, asked)
    parts = _parts(_inlined([*shared, *found.get("parameters", [])], document), asked)
    body = _body(_inlined(found.get("requestBody", {}), document))
    if clash := {part["name"] for part in parts} & body.fields.keys():
        raise ToolsFileError(f"{asked.operation}: '{clash.pop()}' stands in two places")
    prefix = "place_"
    while any(name.startswith(prefix) for name in body.fields):
        prefix += "_"
    places = {part["name"]: f"{prefix}{number}" for number, part in enumerate(parts)}
    parameters: Json = {
        "type": "object",
        "properties": {**{part["name"]: _field(part) for part in parts}, **body.fields},
        "required": [*(part["name"] for part in parts if _required(part)), *body.required],
        "additionalProperties": False,
    }
    text = found.get("description") or found.get("summary") or ""
    written = _placed(_base(asked, document) + path, parts, places)
    written |= {"method": method.upper(), "body": "{body}" if body.whole else None}
    return Operation(_request(asked, written, places), ToolDescription(text, parameters), places)


def _placed(url: str, parts: list[Json], places: Mapping[str, str]) -> Json:
    """Return url, query and headers, in which each argument has a placeholder."""
    named: dict[str, dict[str, str]] = {"query": {}, "header": {}}
    for part in parts:
        name, place = part["name"], "{" + places[part["name"]] + "}"
        if part["in"] == "path":
            url = url.replace("{" + name + "}", place)
        else:
            named[part["in"]][name] = place
    return {"url": url, "query": named["query"], "headers": named["header"]}


def _request(asked: OpenApiTool, written: Json, places: Mapping[str, str]) -> HttpTool:
    try:
        request = HttpTool.model_validate(written)
        names = {name for _, name, _, _ in Formatter().parse(request.url) if name}
    except ValueError as fault:
        message = f"{asked.document}: has no absolute server URL; give base_url"
        raise ToolsFileError(message) from fault
    if unknown := names - {*places.values()}:
        raise ToolsFileError(f"{asked.operation}: the path's '{unknown.pop()}' is no parameter")
    return request


def _base(asked: OpenApiTool, document: Json) -> str:
    """Return the server's URL, its variables at their defaults."""
    first: Json = next(iter(document.get("servers", [])), {})
    url: str = asked.base_url or first.get("url", "")
    for name, variable in first.get("variables", {}).items():
        url = url.replace("{" + name + "}", str(variable.get("default", "")))
    if "{" in url:
        raise ToolsFileError(f"{asked.document}: the server URL has variables; give base_url")
    return url.rstrip("/")


def _parts(parameters: list[Json], asked: OpenApiTool) -> list[Json]:
    """Return the parameters that are arguments; an operation's own replace those of its path."""
    parts = {(part["in"], part["name"]): part for part in parameters if not _reserved(part)}
    names = [name for _, name in parts]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ToolsFileError(f"{asked.operation}: '{twice.pop()}' stands in two places")
    return list(parts.values())


def _reserved(part: Json) -> bool:
    """Tell whether a parameter is none of the model's: the standard says so of these headers."""
    return part["in"] == "cookie" or (part["in"] == "header" and part["name"].lower() in RESERVED)


def _required(part: Json) -> bool:
    return part["in"] == "path" or bool(part.get("required"))


def _document(path: Path) -> Json:
    try:
        text = path.read_text("utf-8")
        read = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise ToolsFileError(f"{path}: {fault}") from fault
    if not isinstance(read, dict) or "paths" not in read:
        raise ToolsFileError(f"{path}: isn't an OpenAPI document")
    return read


def _found(document: Json, asked: OpenApiTool) -> tuple[str, str, Json, list[Json]]:
    known = []
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                known.append(item[method].get("operationId", ""))
                if known[-1] == asked.operation:
                    return path, method, item[method], item.get("parameters", [])
    there = ", ".join(filter(None, known))
    raise ToolsFileError(
        f"{asked.document}: has no operation '{asked.operation}'. There is: {there}"
    )


def _field(place: Json) -> Json:
    schema = dict(place.get("schema", {}))
    return {"description": place["description"], **schema} if "description" in place else schema


@dataclass(frozen=True)
class _Body:
    fields: Json
    required: tuple[str, ...]
    whole: bool
    """Whether the body is one argument, and not an argument for each of its fields."""


def _body(request: Mapping[str, Any]) -> _Body:
    content = request.get("content", {})
    schema: Json | None = next(
        (one.get("schema") for kind, one in content.items() if "json" in kind), None
    )
    if schema is None:
        return _Body({}, (), whole=False)
    if schema.get("type", "object") == "object" and "properties" in schema:
        return _Body(dict(schema["properties"]), tuple(schema.get("required", ())), whole=False)
    return _Body({"body": schema}, ("body",) if request.get("required") else (), whole=True)


def _inlined(part: Any, document: Json, depth: int = 0) -> Any:
    """Return a part of the document with its references resolved; raise BadToolsFile."""
    if depth > MAX_REF_DEPTH:
        raise ToolsFileError("the operation's schema refers to itself, which can't be enforced")
    if isinstance(part, list):
        return [_inlined(each, document, depth + 1) for each in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if not isinstance(reference, str):
        return {key: _inlined(value, document, depth + 1) for key, value in part.items()}
    there: Any = document
    for step in reference.split("/")[1:]:
        there = there.get(step.replace("~1", "/").replace("~0", "~"))
        if not isinstance(there, dict):
            raise ToolsFileError(f"the document refers to '{reference}', which isn't in it")
    return _inlined(there, document, depth + 1)
