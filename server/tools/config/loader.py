"""Loading a tools file: errors name the key, and for an unknown key the nearest known one."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from falsework.server.tools.config.cross_checks import cross_check
from falsework.server.tools.config.policies import ToolPolicy
from falsework.server.tools.config.schema import ToolConfig, ToolsFile
from falsework.server.types import Json

STRING, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class ToolsFileError(ValueError):
    """A tools file that can't be used; each line of the message names a key."""


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses repeated keys, of which the last would win silently."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check the keys before `<<` merges others in."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        line = node.start_mark.line + 1
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if key.tag not in {STRING, MERGE}:
                raise ToolsFileError(f"line {line}: the key {key.value} needs quotes")
        if repeated := {key for key in keys if keys.count(key) > 1}:
            raise ToolsFileError(f"line {line}: '{repeated.pop()}' comes twice")
        return node


def load_tools_file(path: Path) -> ToolsFile:
    """Return the validated content of a tools file; raise ToolsFileError."""
    try:
        # A subclass of SafeLoader makes nothing but plain values.
        content = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ToolsFileError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ToolsFileError(f"{path}: should be a mapping with 'tools'")
    return parse_tools_file(content)


def parse_tools_file(content: Json) -> ToolsFile:
    """Return a validated tools file; raise ToolsFileError."""
    try:
        file = ToolsFile.model_validate(_with_defaults(content))
    except ValidationError as error:
        raise ToolsFileError("\n".join(_messages(error))) from error
    if problems := list(cross_check(file)):
        raise ToolsFileError("\n".join(problems))
    return file


def _with_defaults(content: Json) -> Json:
    """Return the content with `defaults` merged into tools and servers, and shared parameters."""
    content = dict(content)
    defaults = content.pop("defaults", None) or {}
    try:
        ToolPolicy.model_validate(defaults)
    except ValidationError as error:
        raise ToolsFileError("\n".join(_messages(error, "defaults"))) from error
    tools, servers = content.get("tools"), content.get("servers")
    if isinstance(tools, list):
        shared = _shared_parameters(tools)
        content["tools"] = [_merge(defaults, _resolve_parameters(tool, shared)) for tool in tools]
    if isinstance(servers, dict):
        content["servers"] = {name: _merge(defaults, server) for name, server in servers.items()}
    return content


def _merge(defaults: Any, value: Any) -> Any:
    if not (isinstance(value, dict) and isinstance(defaults, dict)):
        return value
    return {**defaults, **{key: _merge(defaults.get(key), inner) for key, inner in value.items()}}


def _shared_parameters(tools: Sequence[Any]) -> Json:
    """Return the parameters of all tools by the reference that another tool may name them with."""
    return {
        f"#/tools/{tool.get('name')}/parameters": tool.get("parameters")
        for tool in tools
        if isinstance(tool, dict)
    }


def _resolve_parameters(tool: Any, shared: Json) -> Any:
    parameters = tool.get("parameters") if isinstance(tool, dict) else None
    reference = parameters.get("$ref") if isinstance(parameters, dict) else None
    return {**tool, "parameters": shared[reference]} if reference in shared else tool


def _messages(error: ValidationError, *prefix: str) -> Iterator[str]:
    for details in error.errors(include_url=False, include_input=False):
        path = [*prefix, *details["loc"]]
        location = ".".join(map(str, path))
        if details["type"] == "extra_forbidden":
            keys = _allowed_keys(path[:-1])
            nearest = difflib.get_close_matches(str(path[-1]), keys, n=1, cutoff=0)
            yield f"{location}: no such key. The nearest is '{''.join(nearest)}'."
        else:
            yield f"{location}: {details['msg'].removeprefix('Value error, ')}."


def _allowed_keys(path: Sequence[Any]) -> list[str]:
    """Return the keys that are allowed at a path of the file."""
    schema: Json = ToolsFile.model_json_schema()
    definitions = schema["$defs"]
    if path[:1] == ["defaults"]:
        schema, path = definitions[ToolConfig.__name__], path[1:]
    for step in path:
        inner = (_subschema(option, step) for option in _options(schema, definitions))
        schema = next((option for option in inner if isinstance(option, dict)), schema)
    options = _options(schema, definitions)
    return [key for option in options for key in option.get("properties", {})]


def _options(schema: Json, definitions: Json) -> list[Json]:
    """Return a schema and its alternatives, references resolved."""
    schema = definitions.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    alternatives = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    return [schema, *(option for one in alternatives for option in _options(one, definitions))]


def _subschema(option: Json, step: Any) -> Any:
    """Return the schema of a key, of an item, or of the variant whose `type` has this value."""
    kinds = option.get("discriminator", {}).get("mapping", {})
    if step in kinds:
        return {"$ref": kinds[step]}
    patterns = [*option.get("patternProperties", {}).values()]
    alternatives = (
        option.get("items") or option.get("additionalProperties") or next(iter(patterns), None)
    )
    return option.get("properties", {}).get(step) or alternatives
