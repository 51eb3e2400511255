"""Reading a tools file: a fault is named by its place, a wrong key by the nearest right one."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from falsework.runtime.checks import validator
from falsework.runtime.entries import ToolEntry, ToolsFile
from falsework.runtime.policies import ToolPolicy

Json = dict[str, Any]


class BadToolsFile(ValueError):
    """A tools file that can't be used; each line is a sentence that names the place."""


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys, of which the last would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise BadToolsFile(f"line {node.start_mark.line + 1}: the key {key} needs quotes")
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise BadToolsFile(f"line {node.start_mark.line + 1}: '{repeated.pop()}' comes twice")
        return super().construct_mapping(node, deep)


def read(path: Path) -> ToolsFile:
    """Return what a tools file says; raise BadToolsFile."""
    try:
        # A subclass of SafeLoader makes nothing but plain values.
        written = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise BadToolsFile(f"{path}: {fault}") from fault
    if not isinstance(written, dict):
        raise BadToolsFile(f"{path}: should be a mapping with 'tools'")
    return parse(written)


def parse(written: Json) -> ToolsFile:
    """Return what the content of a tools file says; raise BadToolsFile."""
    try:
        file = ToolsFile.model_validate(_with_defaults(written))
    except ValidationError as fault:
        raise BadToolsFile("\n".join(_sentences(fault))) from fault
    if wrong := list(_contradictions(file)):
        raise BadToolsFile("\n".join(wrong))
    return file


def _with_defaults(written: Json) -> Json:
    """Return the file with `defaults` under all tools and servers, shared parameters in place."""
    written = dict(written)
    defaults = written.pop("defaults", None) or {}
    try:
        ToolPolicy.model_validate(defaults)
    except ValidationError as fault:
        raise BadToolsFile("\n".join(_sentences(fault, "defaults"))) from fault
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
        options = [here, *here.get("anyOf", []), *here.get("oneOf", [])]
        options = [definitions.get(str(o.get("$ref", "")).rpartition("/")[2], o) for o in options]
        found: Iterable[Any] = (
            option.get("properties", {}).get(step) or option.get("items")
            or option.get("additionalProperties")
            for option in options
        )  # fmt: skip
        here = next((one for one in found if isinstance(one, dict)), here)
    options = [here, *here.get("anyOf", []), *here.get("oneOf", [])]
    options = [definitions.get(str(o.get("$ref", "")).rpartition("/")[2], o) for o in options]
    return [key for option in options for key in option.get("properties", {})]


def _contradictions(file: ToolsFile) -> Iterator[str]:
    names = [tool.name for tool in file.tools]
    offered = [f"{server}__{tool}" for server, one in file.servers.items() for tool in one.tools]
    known = {*names, *offered}
    for name in {name for name in [*names, *offered] if [*names, *offered].count(name) > 1}:
        yield f"tools: two tools are named '{name}'."
    for tool in file.tools:
        where = f"tools.{tool.name}"
        yield from (f"{where}.{place}: there is no tool '{name}'." for place, name in _named(tool)
                    if name not in known)  # fmt: skip
        if tool.mcp and tool.mcp.server not in file.servers:
            yield f"{where}.mcp.server: there is no server '{tool.mcp.server}'."
        for key in ("parameters", "result_schema"):
            yield from _bad_schema(getattr(tool, key), f"{where}.{key}")


def _named(tool: ToolEntry) -> Iterator[tuple[str, str]]:
    yield from (("requires", name) for name in tool.requires)
    yield from (("fallback.tool", each.tool) for each in tool.fallback if each.tool)
    if tool.verify:
        yield "verify.tool", tool.verify.tool


def _bad_schema(schema: Mapping[str, Any] | None, where: str) -> Iterator[str]:
    if schema is None:
        return
    try:
        validator(dict(schema))
    except ValueError as fault:
        yield f"{where}: isn't a JSON Schema: {str(fault).splitlines()[0]}."
