"""`falsework tools check FILE` and `falsework tools call NAME ARGUMENTS --tools FILE`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import anyio
import structlog
import typer
import yaml
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from falsework.server.observability.logging import configure_logging
from falsework.server.observability.tracing import tracer_provider
from falsework.server.tools.config.loader import ToolsFileError, load_tools_file
from falsework.server.tools.config.policies import ToolPolicy
from falsework.server.tools.config.schema import ToolsFile
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.registry import ToolRegistry, open_registry
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool import ServerTool, ToolCall

app = typer.Typer(no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The tools file.")]
Tools = Annotated[Path, typer.Option("--tools", help="The tools file.")]


@app.command()
def check(file: File) -> None:
    """Say what is wrong with FILE, or print the policy of each of its tools."""
    with _Complaints():
        anyio.run(_print_policies, load_tools_file(file), file.parent)


@app.command()
def call(
    name: Annotated[str, typer.Argument(help="The tool.")],
    arguments: Annotated[str, typer.Argument(help="Its arguments, as JSON.")] = "{}",
    *,
    tools: Tools,
    approve: Annotated[bool, typer.Option(help="Approve the call, where it needs that.")] = False,
) -> None:
    """Run one tool by hand, through all its layers, and print what happened."""
    with _Complaints():
        outcome = anyio.run(_call, load_tools_file(tools), tools.parent, name, arguments, approve)
    typer.echo(outcome.for_model())
    raise typer.Exit(0 if outcome.ok else 1)


class _Complaints:
    """Turns a bad tools file into a sentence and exit status 2."""

    def __enter__(self) -> None:
        sys.path.insert(0, str(Path.cwd()))  # where the functions of python tools are looked for
        configure_logging("warning")  # what is printed belongs to the result

    def __exit__(self, _: object, fault: BaseException | None, __: object) -> None:
        structlog.reset_defaults()
        if isinstance(fault, ToolsFileError):
            typer.secho(f"Error: {fault}", err=True, fg=typer.colors.RED)
            raise typer.Exit(2) from fault


async def _print_policies(file: ToolsFile, folder: Path) -> None:
    async with open_registry(file, folder) as toolbox:
        for tool in toolbox.tools.values():
            typer.secho(f"{tool.name} ({tool.kind}, {tool.upstream.name})", bold=True)
            typer.echo(_indented(yaml.safe_dump(_policy(tool, toolbox), sort_keys=False)))
    typer.echo(f"{len(toolbox.tools)} tools, and nothing is wrong with them.")


def _policy(tool: ServerTool, toolbox: ToolRegistry) -> dict[str, Any]:
    """Return what holds for a tool: where the file is silent, what follows from the rest of it."""
    fields = set(ToolPolicy.model_fields) - {"egress"}
    policy = tool.entry.model_dump(mode="json", include=fields, exclude_none=True)
    allowed = toolbox.reach.get(tool.name) or toolbox.reach.get(tool.upstream.name)
    if allowed:
        policy["egress"] = {
            "allow_hosts": sorted(allowed.hosts),
            "deny_private": allowed.deny_private,
            "require_tls": allowed.require_tls,
        }
    if tool.entry.python:
        policy["run_in"] = tool.entry.python.run_location(tool.entry.effect)
    return policy


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


async def _call(
    file: ToolsFile, folder: Path, name: str, arguments: str, approved: bool
) -> ToolResult:
    spans = InMemorySpanExporter()
    tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
    async with open_registry(file, folder) as toolbox:
        outcome = await _outcome(toolbox, ToolCall("call_by_hand", name, arguments), approved)
    for line in _told(spans.get_finished_spans()):
        typer.secho(line, err=True, dim=True)
    return outcome


async def _outcome(toolbox: ToolRegistry, asked: ToolCall, approved: bool) -> ToolResult:
    if asked.name not in toolbox.tools:
        known = ", ".join(toolbox.tools) or "none"
        raise ToolsFileError(f"there is no tool '{asked.name}'. There is: {known}")
    try:
        await toolbox.tools[asked.name].load_description()
    except ToolCallError as fault:
        return asked.result(fault=fault)
    run = toolbox.new_run("by-hand", toolbox.file.request.deadline)
    approvals = frozenset({asked.id} if approved else ())
    (outcome,) = await run.execute([asked], approvals)
    return outcome


def _told(spans: tuple[ReadableSpan, ...]) -> Iterator[str]:
    """Yield a line for each span, in the order of their beginnings."""
    ordered = sorted(spans, key=lambda span: span.start_time or 0)
    first = (ordered[0].start_time or 0) if ordered else 0
    for span in ordered:
        begun = ((span.start_time or 0) - first) / 1e6
        took = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
        said: dict[str, Any] = dict(span.attributes or {})
        shown = {key.rpartition(".")[2]: value for key, value in said.items()}
        yield f"{begun:8.1f} ms  {span.name} took {took:.1f} ms {json.dumps(shown)}"
