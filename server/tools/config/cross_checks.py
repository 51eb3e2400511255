"""What the parts of a tools file say against each other, though each of them can be read."""

import graphlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from falsework.server.tools.config.expressions import placeholders
from falsework.server.tools.config.policies import WRITE_EFFECTS, ToolPolicy
from falsework.server.tools.config.schema import NO_PARAMETERS, ToolConfig, ToolsFile
from falsework.server.tools.validation import compile_schema

KINDS_WITHOUT_IDEMPOTENCY = frozenset({"mcp", "python"})
"""Kinds of tools whose calls have no header that a key could be sent in."""

SHARED_POLICIES = ("breaker", "retry_budget")
"""What tools with one upstream share."""


def cross_check(file: ToolsFile) -> Iterator[str]:
    """Yield a sentence for each, as far as the file alone can tell."""
    names = [tool.name for tool in file.tools]
    names += [f"{server}__{tool}" for server, one in file.servers.items() for tool in one.tools]
    for name in {name for name in names if names.count(name) > 1}:
        yield f"tools: two tools are named '{name}'."
    for where, policy in _policies(file):
        yield from (f"{where}.{place}: there is no tool '{name}'."
                    for place, name in _named(policy) if name not in names)  # fmt: skip
        yield from _never_kept(policy, where)
    for name, server in file.servers.items():
        if server.idempotency:
            yield f"servers.{name}.idempotency: an MCP server is sent no key to honour."
    for tool in file.tools:
        yield from _of_tool(tool, file)
    yield from _circles(file)


def _policies(file: ToolsFile) -> Iterator[tuple[str, ToolPolicy]]:
    yield from ((f"tools.{tool.name}", tool) for tool in file.tools)
    yield from ((f"servers.{name}", server) for name, server in file.servers.items())


def _named(policy: ToolPolicy) -> Iterator[tuple[str, str]]:
    yield from (("requires", name) for name in policy.requires)
    yield from (("fallback.tool", each.tool) for each in policy.fallback if each.tool)
    if policy.verify:
        yield "verify.tool", policy.verify.tool


def _never_kept(policy: ToolPolicy, where: str) -> Iterator[str]:
    if not policy.cache.stale_if_error and any(each.stale for each in policy.fallback):
        yield f"{where}.fallback.stale: needs cache.stale_if_error, or no old result is kept."


def _of_tool(tool: ToolConfig, file: ToolsFile) -> Iterator[str]:
    where = f"tools.{tool.name}"
    if tool.mcp and tool.mcp.server not in file.servers:
        yield f"{where}.mcp.server: there is no server '{tool.mcp.server}'."
    if tool.idempotency and tool.kind in KINDS_WITHOUT_IDEMPOTENCY:
        yield f"{where}.idempotency: a tool of kind {tool.kind} is sent no key to honour."
    wrong = [*_bad_schema(tool.parameters, f"{where}.parameters"),
             *_bad_schema(tool.result_schema, f"{where}.result_schema")]  # fmt: skip
    yield from wrong or _without_parameter(tool, where)


def _bad_schema(schema: Mapping[str, Any] | None, where: str) -> Iterator[str]:
    if schema is None:
        return
    try:
        compile_schema(dict(schema))
    except ValueError as fault:
        yield f"{where}: isn't a JSON Schema: {str(fault).splitlines()[0]}."


def _without_parameter(tool: ToolConfig, where: str) -> Iterator[str]:
    """Yield the placeholders that no argument can fill; a schema without names allows all."""
    parameters = tool.parameters or (NO_PARAMETERS if tool.http else {})
    if "properties" not in parameters:
        return
    templates = {"verify.arguments": tool.verify.arguments if tool.verify else {}}
    if tool.http:
        templates |= {f"http.{key}": getattr(tool.http, key)
                      for key in ("url", "query", "headers", "body")}  # fmt: skip
    for place, template in templates.items():
        try:
            names = set(placeholders(template)) - parameters["properties"].keys()
        except ValueError as fault:
            yield f"{where}.{place}: isn't a template: {fault}."
            continue
        yield from (f"{where}.{place}: '{{{name}}}' is no parameter." for name in sorted(names))


def _circles(file: ToolsFile) -> Iterator[str]:
    policies: dict[str, ToolPolicy] = {tool.name: tool for tool in file.tools}
    for label, server in file.servers.items():
        policies |= {f"{label}__{name}": server for name in server.tools}
    graphs: dict[str, dict[str, Iterable[str]]] = {
        "requires": {name: policy.requires for name, policy in policies.items()},
        "fallback": {name: [each.tool for each in policy.fallback if each.tool]
                     for name, policy in policies.items()},
    }  # fmt: skip
    for key, graph in graphs.items():
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as fault:
            yield f"tools.{fault.args[1][0]}.{key}: goes in a circle: {', '.join(fault.args[1])}."


def check_effects(entries: Mapping[str, ToolConfig]) -> Iterator[str]:
    """Yield a sentence for each contradiction that shows once every tool's effect is known."""
    writing = {name for name, entry in entries.items() if entry.effect in WRITE_EFFECTS}
    for name, entry in entries.items():
        check = _of_write if name in writing else _of_read
        yield from (f"tools.{name}.{said}" for said in check(entry, writing))
        if entry.verify and entry.verify.tool in writing:
            yield f"tools.{name}.verify.tool: '{entry.verify.tool}' writes, and a read has to tell."


def _of_write(entry: ToolConfig, _: set[str]) -> Iterator[str]:
    if entry.hedge:
        yield "hedge: this tool writes, and only reads may be sent twice."
    if entry.python and entry.python.run_in == "thread":
        yield "python.run_in: this tool writes, and a thread can't be stopped."


def _of_read(entry: ToolConfig, writing: set[str]) -> Iterator[str]:
    for each in entry.fallback:
        if each.tool in writing:
            yield f"fallback.tool: '{each.tool}' writes, and this tool only reads."


def upstream_conflicts(first: ToolConfig, other: ToolConfig, upstream: str) -> Iterator[str]:
    """Yield what two tools say differently of the upstream that they share."""
    for key in SHARED_POLICIES:
        if getattr(first, key) != getattr(other, key):
            yield (f"tools.{other.name}.{key}: '{first.name}' says otherwise, and both reach "
                   f"{upstream}.")  # fmt: skip
