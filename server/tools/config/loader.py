"""Reading a tools file: a fault is named by its place, a wrong key by the nearest right one."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from falsework.server.tools.config.cross_checks import cross_check
from falsework.server.tools.config.policies import ToolPolicy
from falsework.server.tools.config.schema import ToolsFile

Json = dict[str, Any]

STRING, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class ToolsFileError(ValueError):
    """A tools file that can't be used; each line is a sentence that names the place."""


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys, of which the last would win in silence."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Look at the keys as they are written, before `<<` brings others in."""
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
    """Return what a tools file says; raise BadToolsFile."""
    try:
        # A subclass of SafeLoader makes nothing but plain values.
        written = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise ToolsFileError(f"{path}: {fault}") from fault
    if not isinstance(written, dict):
        raise ToolsFileError(f"{path}: should be a mapping with 'tools'")
    return parse_tools_file(written)


def parse_tools_file(written: Json) -> ToolsFile:
    """Return what the content of a tools file says; raise BadToolsFile."""
    try:
        file = ToolsFile.model_validate(_with_defaults(written))
    except ValidationError as fault:
        raise ToolsFileError("\n".join(_sentences(fault))) from fault
    if wrong := list(cross_check(file)):
        raise ToolsFileError("\n".join(wrong))
    return file


def _with_defaults(written: Json) -> Json:
    """Return the file with `defaults` under all tools and servers, shared parameters in place."""
    written = dict(written)
    defaults = written.pop("defaults", None) or {}
    try:
        ToolPolicy.model_validate(defaults)
    except ValidationError as fault:
        raise ToolsFileError("\n".join(_sentences(fault, "defaults"))) from fault
    tools, servers = written.get("tools"), written.get("servers")
    if isinstance(tools, list):
        written["tools"] = [_under(tool, defaults) for tool in map(_shared(tools), tools)]
    if isinstance(servers, dict):
        written["servers"] = {name: _under(one, defaults) for name, one in servers.items()}
    return written


def _under(given: Any, defaults: Any) -> Any:
    if not (isinstance(given, dict) and isinstance(defaults, dict)):
        return given
    merged = dict(defaults)
    for key, value in given.items():
        merged[key] = _under(value, defaults.get(key))
    return merged


def _shared(tools: Sequence[Any]) -> Any:
    known = {
        f"#/tools/{tool.get('name')}/parameters": tool.get("parameters")
        for tool in tools
        if isinstance(tool, dict)
    }

    def resolved(tool: Any) -> Any:
        parameters = tool.get("parameters") if isinstance(tool, dict) else None
        reference = parameters.get("$ref") if isinstance(parameters, dict) else None
        return {**tool, "parameters": known[reference]} if reference in known else tool

    return resolved


def _sentences(fault: ValidationError, *above: str) -> Iterator[str]:
    for error in fault.errors(include_url=False, include_input=False):
        path = [*above, *error["loc"]]
        place = ".".join(map(str, path))
        if error["type"] == "extra_forbidden":
            known = _keys_at(path[:-1])
            near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0)
            yield f"{place}: no such key. The nearest is '{''.join(near)}'."
        else:
            yield f"{place}: {error['msg'].removeprefix('Value error, ')}."


def _keys_at(path: Sequence[Any]) -> list[str]:
    """Return the keys that may stand at a place of the file."""
    schema = ToolsFile.model_json_schema()
    definitions = schema["$defs"]
    here: Json = definitions["ToolEntry"] if path[:1] == ["defaults"] else schema
    for step in path[1:] if path[:1] == ["defaults"] else path:
        found = (_below(option, step) for option in _options(here, definitions))
        here = next((one for one in found if isinstance(one, dict)), here)
    return [key for one in _options(here, definitions) for key in one.get("properties", {})]


def _options(here: Json, definitions: Json) -> list[Json]:
    """Return the schemas that may hold at a place, references and alternatives resolved."""
    here = definitions.get(str(here.get("$ref", "")).rpartition("/")[2], here)
    others = [*here.get("anyOf", []), *here.get("oneOf", [])]
    return [here, *(one for other in others for one in _options(other, definitions))]


def _below(option: Json, step: Any) -> Any:
    """Return the schema of a key, of an item, or of what `type` has this value."""
    kinds = option.get("discriminator", {}).get("mapping", {})
    if step in kinds:
        return {"$ref": kinds[step]}
    patterns = [*option.get("patternProperties", {}).values()]
    others = option.get("items") or option.get("additionalProperties") or (patterns or [None])[0]
    return option.get("properties", {}).get(step) or others
