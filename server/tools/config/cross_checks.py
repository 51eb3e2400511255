"""Cross-field checks of a tools file: unknown names, cycles, policies that exclude each other."""

import graphlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from falsework.server.json_schema import compile_schema
from falsework.server.tools.config.expressions import placeholders
from falsework.server.tools.config.policies import WRITE_EFFECTS, ToolPolicy
from falsework.server.tools.config.schema import NO_PARAMETERS, ToolConfig, ToolsFile

KINDS_WITHOUT_IDEMPOTENCY = frozenset({"mcp", "python"})
"""Kinds of tools whose calls have no header for an idempotency key."""

SHARED_POLICIES = ("breaker", "retry_budget")
"""Policies that tools with the same upstream share."""


def cross_check(file: ToolsFile) -> Iterator[str]:
    """Yield an error message for each contradiction that the file alone shows."""
    names = [tool.name for tool in file.tools]
    for label, server in file.servers.items():
        names += [f"{label}__{tool}" for tool in server.tools]
    for name in {name for name in names if names.count(name) > 1}:
        yield f"tools: two tools are named '{name}'."
    for path, policy in _policies(file):
        for key, name in _referenced_tools(policy):
            if name not in names:
                yield f"{path}.{key}: there is no tool '{name}'."
        yield from _check_stale_fallback(policy, path)
    for name, server in file.servers.items():
        if server.idempotency:
            yield f"servers.{name}.idempotency: an MCP server is sent no key to honour."
    for tool in file.tools:
        yield from _check_tool(tool, file)
    yield from _check_cycles(file)


def _policies(file: ToolsFile) -> Iterator[tuple[str, ToolPolicy]]:
    yield from ((f"tools.{tool.name}", tool) for tool in file.tools)
    yield from ((f"servers.{name}", server) for name, server in file.servers.items())


def _referenced_tools(policy: ToolPolicy) -> Iterator[tuple[str, str]]:
    yield from (("requires", name) for name in policy.requires)
    yield from (("fallback.tool", fallback.tool) for fallback in policy.fallback if fallback.tool)
    if policy.verify:
        yield "verify.tool", policy.verify.tool


def _check_stale_fallback(policy: ToolPolicy, path: str) -> Iterator[str]:
    if not policy.cache.stale_if_error and any(fallback.stale for fallback in policy.fallback):
        yield f"{path}.fallback.stale: needs cache.stale_if_error, or no old result is kept."


def _check_tool(tool: ToolConfig, file: ToolsFile) -> Iterator[str]:
    path = f"tools.{tool.name}"
    if tool.mcp and tool.mcp.server not in file.servers:
        yield f"{path}.mcp.server: there is no server '{tool.mcp.server}'."
    if tool.idempotency and tool.kind in KINDS_WITHOUT_IDEMPOTENCY:
        yield f"{path}.idempotency: a tool of kind {tool.kind} is sent no key to honour."
    problems = [
        *_check_schema(tool.parameters, f"{path}.parameters"),
        *_check_schema(tool.result_schema, f"{path}.result_schema"),
    ]
    yield from problems or _check_placeholders(tool, path)


def _check_schema(schema: Mapping[str, Any] | None, path: str) -> Iterator[str]:
    if schema is None:
        return
    try:
        compile_schema(dict(schema))
    except ValueError as error:
        yield f"{path}: isn't a JSON Schema: {str(error).splitlines()[0]}."


def _check_placeholders(tool: ToolConfig, path: str) -> Iterator[str]:
    """Yield a message for each placeholder that is no parameter, and each malformed template."""
    parameters = tool.parameters or (NO_PARAMETERS if tool.http else {})
    if "properties" not in parameters:
        return
    templates = {"verify.arguments": tool.verify.arguments if tool.verify else {}}
    if tool.http:
        templates |= {
            f"http.{key}": getattr(tool.http, key) for key in ("url", "query", "headers", "body")
        }
    for key, template in templates.items():
        try:
            names = set(placeholders(template)) - parameters["properties"].keys()
        except ValueError as error:
            yield f"{path}.{key}: isn't a template: {error}."
            continue
        yield from (f"{path}.{key}: '{{{name}}}' is no parameter." for name in sorted(names))


def _check_cycles(file: ToolsFile) -> Iterator[str]:
    policies: dict[str, ToolPolicy] = {tool.name: tool for tool in file.tools}
    for label, server in file.servers.items():
        policies |= {f"{label}__{name}": server for name in server.tools}
    graphs: dict[str, dict[str, Iterable[str]]] = {
        "requires": {name: policy.requires for name, policy in policies.items()},
        "fallback": {
            name: [fallback.tool for fallback in policy.fallback if fallback.tool]
            for name, policy in policies.items()
        },
    }
    for key, graph in graphs.items():
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            yield f"tools.{error.args[1][0]}.{key}: goes in a circle: {', '.join(error.args[1])}."


def check_effects(entries: Mapping[str, ToolConfig]) -> Iterator[str]:
    """Yield an error message for each contradiction that only the tools' effects show."""
    writing = {name for name, entry in entries.items() if entry.effect in WRITE_EFFECTS}
    for name, entry in entries.items():
        check = _check_write if name in writing else _check_read
        yield from (f"tools.{name}.{problem}" for problem in check(entry, writing))
        if entry.verify and entry.verify.tool in writing:
            yield f"tools.{name}.verify.tool: '{entry.verify.tool}' writes, and a read has to tell."


def _check_write(entry: ToolConfig, _: set[str]) -> Iterator[str]:
    if entry.hedge:
        yield "hedge: this tool writes, and only reads may be sent twice."
    if entry.python and entry.python.run_in == "thread":
        yield "python.run_in: this tool writes, and a thread can't be stopped."


def _check_read(entry: ToolConfig, writing: set[str]) -> Iterator[str]:
    for fallback in entry.fallback:
        if fallback.tool in writing:
            yield f"fallback.tool: '{fallback.tool}' writes, and this tool only reads."


def upstream_conflicts(first: ToolConfig, other: ToolConfig, upstream: str) -> Iterator[str]:
    """Yield an error message for each shared policy in which two tools of one upstream differ."""
    for key in SHARED_POLICIES:
        if getattr(first, key) != getattr(other, key):
            message = f"'{first.name}' says otherwise, and both reach {upstream}."
            yield f"tools.{other.name}.{key}: {message}"
