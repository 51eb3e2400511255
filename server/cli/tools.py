"""`falsework tools check FILE` and `falsework tools call NAME ARGUMENTS --tools FILE`."""

import json
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

from falsework.server.observability import configure_logging, tracer_provider
from falsework.server.tools import ServerTool, ToolCall, ToolRegistry, open_registry
from falsework.server.tools.config import ToolPolicy, ToolsFile, ToolsFileError, load_tools_file
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult

app = typer.Typer(no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The tools file.")]
Tools = Annotated[Path, typer.Option("--tools", help="The tools file.")]


@app.command()
def check(file: File) -> None:
    """Say what is wrong with FILE, or print the policy of each of its tools."""
    with _ErrorReport():
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
    with _ErrorReport():
        result = anyio.run(_call, load_tools_file(tools), tools.parent, name, arguments, approve)
    typer.echo(result.for_model())
    raise typer.Exit(0 if result.ok else 1)


class _ErrorReport:
    """Prints a ToolsFileError as one message, with exit status 2."""

    def __enter__(self) -> None:
        configure_logging("warning")  # what is printed belongs to the result

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        structlog.reset_defaults()
        if isinstance(error, ToolsFileError):
            typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
            raise typer.Exit(2) from error


async def _print_policies(file: ToolsFile, folder: Path) -> None:
    async with open_registry(file, folder) as registry:
        for tool in registry.tools.values():
            typer.secho(f"{tool.name} ({tool.kind}, {tool.upstream.name})", bold=True)
            typer.echo(_indent(yaml.safe_dump(_policy(tool, registry), sort_keys=False)))
    typer.echo(f"{len(registry.tools)} tools, and nothing is wrong with them.")


def _policy(tool: ServerTool, registry: ToolRegistry) -> dict[str, Any]:
    """Return the policy of a tool, its defaults included."""
    fields = set(ToolPolicy.model_fields) - {"egress"}
    policy = tool.entry.model_dump(mode="json", include=fields, exclude_none=True)
    rules = registry.egress.get(tool.name) or registry.egress.get(tool.upstream.name)
    if rules:
        policy["egress"] = {
            "allow_hosts": sorted(rules.hosts),
            "deny_private": rules.deny_private,
            "require_tls": rules.require_tls,
        }
    if tool.entry.python:
        policy["run_in"] = tool.entry.python.run_location(tool.entry.effect)
    return policy


def _indent(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


async def _call(
    file: ToolsFile, folder: Path, name: str, arguments: str, approved: bool
) -> ToolResult:
    spans = InMemorySpanExporter()
    tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
    async with open_registry(file, folder) as registry:
        result = await _call_tool(registry, ToolCall("call_by_hand", name, arguments), approved)
    for line in _span_lines(spans.get_finished_spans()):
        typer.secho(line, err=True, dim=True)
    return result


async def _call_tool(registry: ToolRegistry, call: ToolCall, approved: bool) -> ToolResult:
    if call.name not in registry.tools:
        names = ", ".join(registry.tools) or "none"
        raise ToolsFileError(f"there is no tool '{call.name}'. There is: {names}")
    try:
        await registry.tools[call.name].load_description()
    except ToolCallError as error:
        return call.result(error=error)
    run = registry.new_run("by-hand", registry.file.request.deadline)
    approvals = frozenset({call.id} if approved else ())
    (result,) = await run.execute([call], approvals)
    return result


def _span_lines(spans: tuple[ReadableSpan, ...]) -> Iterator[str]:
    """Yield a line for each span, in the order of their start."""
    ordered = sorted(spans, key=lambda span: span.start_time or 0)
    first = (ordered[0].start_time or 0) if ordered else 0
    for span in ordered:
        start = ((span.start_time or 0) - first) / 1e6
        duration = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
        attributes: dict[str, Any] = dict(span.attributes or {})
        shown = {key.rpartition(".")[2]: value for key, value in attributes.items()}
        yield f"{start:8.1f} ms  {span.name} took {duration:.1f} ms {json.dumps(shown)}"
