"""A tool that is one operation of an OpenAPI document, from which its HTTP request is derived."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import httpx2
import yaml
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from falsework.server.tools.config import HttpTool, OpenApiTool, ToolsFileError
from falsework.server.tools.executors.base import AttemptContext, ToolDescription
from falsework.server.tools.executors.http import HttpExecutor
from falsework.server.types import Json

METHODS = ("get", "put", "post", "delete", "head", "patch")
RESERVED_HEADERS = frozenset({"accept", "authorization", "content-type"})
"""Header parameters that OpenAPI tells tools to ignore."""

ANNOTATIONS = frozenset({"default", "deprecated", "description", "example", "summary", "title"})
"""Keywords that constrain nothing: beside a `$ref` they replace those of its target."""


@dataclass(frozen=True)
class Operation:
    """An operation's request, and the placeholder in it for each argument."""

    request: HttpTool
    description: ToolDescription
    placeholders: Mapping[str, str]


class OpenApiExecutor(HttpExecutor):
    """Sends the operation's request."""

    def __init__(
        self, operation: Operation, client: httpx2.AsyncClient, key_header: str | None
    ) -> None:
        super().__init__(operation.request, client, key_header)
        self._operation = operation

    async def describe(self) -> ToolDescription:
        """Return the document's description of the operation."""
        return self._operation.description

    async def execute(self, arguments: Json, attempt: AttemptContext) -> Any:
        """Return the response's JSON, or its text."""
        placeholders = self._operation.placeholders
        renamed = {placeholders.get(name, name): value for name, value in arguments.items()}
        return await super().execute(renamed, attempt)


def load_operation(config: OpenApiTool, folder: Path) -> Operation:
    """Return an operation; raise ToolsFileError."""
    document = _load_document(folder / config.document.removeprefix("file://"))
    path, method, operation, shared = _find_operation(document, config)
    parameters = _arguments([*shared, *operation.get("parameters", [])], config)
    body = _parse_body(operation.get("requestBody", {}))
    names = [parameter["name"] for parameter in parameters]
    if duplicates := set(names) & body.fields.keys():
        raise ToolsFileError(f"{config.operation}: '{duplicates.pop()}' stands in two places")
    prefix = "place_"
    while any(name.startswith(prefix) for name in body.fields):
        prefix += "_"
    placeholders = {name: f"{prefix}{number}" for number, name in enumerate(names)}
    fields = {parameter["name"]: _parameter_schema(parameter) for parameter in parameters}
    required = [parameter["name"] for parameter in parameters if _is_required(parameter)]
    schema: Json = {
        "type": "object",
        "properties": {**fields, **body.fields},
        "required": [*required, *body.required],
        "additionalProperties": False,
    }
    text = operation.get("description") or operation.get("summary") or ""
    request = _templates(_base_url(config, document) + path, parameters, placeholders)
    request |= {"method": method.upper(), "body": "{body}" if body.is_single_argument else None}
    return Operation(
        _http_tool(config, request, placeholders), ToolDescription(text, schema), placeholders
    )


def _templates(url: str, parameters: list[Json], placeholders: Mapping[str, str]) -> Json:
    """Return url, query and headers with a placeholder for each argument."""
    templates: dict[str, dict[str, str]] = {"query": {}, "header": {}}
    for parameter in parameters:
        name, placeholder = parameter["name"], "{" + placeholders[parameter["name"]] + "}"
        if parameter["in"] == "path":
            url = url.replace("{" + name + "}", placeholder)
        else:
            templates[parameter["in"]][name] = placeholder
    return {"url": url, "query": templates["query"], "headers": templates["header"]}


def _http_tool(config: OpenApiTool, fields: Json, placeholders: Mapping[str, str]) -> HttpTool:
    try:
        request = HttpTool.model_validate(fields)
        names = {name for _, name, _, _ in Formatter().parse(request.url) if name}
    except ValueError as error:
        message = f"{config.document}: has no absolute server URL; give base_url"
        raise ToolsFileError(message) from error
    if unknown := names - {*placeholders.values()}:
        raise ToolsFileError(f"{config.operation}: the path's '{unknown.pop()}' is no parameter")
    return request


def _base_url(config: OpenApiTool, document: Json) -> str:
    """Return the server's URL, its variables at their defaults."""
    server: Json = next(iter(document.get("servers", [])), {})
    url: str = config.base_url or server.get("url", "")
    for name, variable in server.get("variables", {}).items():
        url = url.replace("{" + name + "}", str(variable.get("default", "")))
    if "{" in url:
        raise ToolsFileError(f"{config.document}: the server URL has variables; give base_url")
    return url.rstrip("/")


def _arguments(parameters: list[Json], config: OpenApiTool) -> list[Json]:
    """Return the parameters that the model gives; an operation's own replace those of its path."""
    unique = {
        (parameter["in"], parameter["name"]): parameter
        for parameter in parameters
        if not _is_ignored(parameter)
    }
    names = [name for _, name in unique]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise ToolsFileError(f"{config.operation}: '{duplicates.pop()}' stands in two places")
    return list(unique.values())


def _is_ignored(parameter: Json) -> bool:
    if parameter["in"] == "header":
        return parameter["name"].lower() in RESERVED_HEADERS
    return bool(parameter["in"] == "cookie")


def _is_required(parameter: Json) -> bool:
    return parameter["in"] == "path" or bool(parameter.get("required"))


def _load_document(path: Path) -> Json:
    try:
        text = path.read_text("utf-8")
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ToolsFileError(f"{path}: {error}") from error
    if not isinstance(document, dict) or "paths" not in document:
        raise ToolsFileError(f"{path}: isn't an OpenAPI document")
    return document


def _find_operation(document: Json, config: OpenApiTool) -> tuple[str, str, Json, list[Json]]:
    """Return path, method, operation and the path's parameters, with all references resolved."""
    references = _References(document)
    operation_ids = []
    for path, item in document["paths"].items():
        for method, operation in references.resolve(item).items():
            if method not in METHODS:
                continue
            operation_ids.append(operation.get("operationId", ""))
            if operation_ids[-1] == config.operation:
                parameters = references.resolve(item).get("parameters", [])
                return path, method, references.inline(operation), references.inline(parameters)
    available = ", ".join(filter(None, operation_ids))
    raise ToolsFileError(
        f"{config.document}: has no operation '{config.operation}'. There is: {available}"
    )


def _parameter_schema(parameter: Json) -> Json:
    schema = dict(parameter.get("schema", {}))
    if "description" in parameter:
        return {"description": parameter["description"], **schema}
    return schema


@dataclass(frozen=True)
class _Body:
    fields: Json
    required: tuple[str, ...] = ()
    is_single_argument: bool = False
    """Whether the body is one argument, and not an argument for each of its fields."""


def _parse_body(request: Mapping[str, Any]) -> _Body:
    content = request.get("content", {})
    json_bodies = (body for media_type, body in content.items() if "json" in media_type)
    schema: Json | None = next((body.get("schema") for body in json_bodies), None)
    if schema is None:
        return _Body({})
    if schema.get("type", "object") == "object" and "properties" in schema:
        return _Body(dict(schema["properties"]), tuple(schema.get("required", ())))
    required = ("body",) if request.get("required") else ()
    return _Body({"body": schema}, required, is_single_argument=True)


class _References:
    """Resolves the `$ref`s of a document; what they name outside it isn't fetched."""

    def __init__(self, document: Json) -> None:
        resource = Resource.from_contents(document, default_specification=DRAFT202012)
        self._resolver = Registry().with_resource("", resource).resolver()
        self._ignores_siblings = str(document.get("openapi", "")).startswith("3.0")

    def resolve(self, part: Json) -> Json:
        """Return a part, or the target of its `$ref`."""
        reference = part.get("$ref")
        return self._target(reference) if isinstance(reference, str) else part

    def inline(self, part: Any, followed: tuple[str, ...] = ()) -> Any:
        """Return a part with the targets of all references in their place; raise ToolsFileError."""
        if isinstance(part, list):
            return [self.inline(item, followed) for item in part]
        if not isinstance(part, dict):
            return part
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return {key: self.inline(value, followed) for key, value in part.items()}
        if reference in followed:
            message = f"the schema '{reference}' refers to itself, which can't be enforced"
            raise ToolsFileError(message)
        target = self.inline(self._target(reference), (*followed, reference))
        siblings = {key: value for key, value in part.items() if key != "$ref"}
        if self._ignores_siblings or not siblings:
            return target
        return _conjunction(target, self.inline(siblings, followed))

    def _target(self, reference: str) -> Json:
        try:
            target = self._resolver.lookup(reference).contents
        except Unresolvable:
            target = None
        if not isinstance(target, dict):
            raise ToolsFileError(f"the document refers to '{reference}', which isn't in it")
        return target


def _conjunction(target: Json, siblings: Json) -> Json:
    """Return a schema that both hold in; annotations of `siblings` win."""
    if target.keys() & siblings.keys() <= ANNOTATIONS:
        return {**target, **siblings}
    annotations = {key: value for key, value in siblings.items() if key in ANNOTATIONS}
    return {"allOf": [target, siblings], **annotations}
