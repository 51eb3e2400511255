"""`falsework schema check PATH`: how schemas are served, as a table or as JSON lines."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
import yaml

if TYPE_CHECKING:
    from falsework.server.cli.schema_report import SchemaReport

app = typer.Typer(no_args_is_help=True)


class _Asked(NamedTuple):
    """One schema to check."""

    name: str
    schema: Any
    instances: list[Any] | None = None


@app.callback()
def schema() -> None:
    """Tell how JSON Schemas are served."""


@app.command()
def check(
    path: Annotated[
        Path | None, typer.Argument(help="A file or a folder; without it, JSON lines on stdin.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line a schema.")] = False,
    openai_strict: Annotated[
        bool, typer.Option(help="Hold the schemas to the rules of OpenAI's strict mode.")
    ] = False,
    tools: Annotated[
        bool, typer.Option(help="Read tool lists, MCP's tools/list and OpenAPI documents.")
    ] = False,
) -> None:
    """Say how each schema is served: automaton, llguidance, checked or refused.

    The status is 0 when all are accepted, 1 when one is refused, 2 when the input can't be read.
    """
    # vLLM's CPU workers import the command line first, and fail where it has imported numba.
    from falsework.grammars.warm_up import warm_up  # noqa: PLC0415
    from falsework.server.cli.schema_report import check_schema  # noqa: PLC0415

    reports = []
    warm_up()
    try:
        for asked in _read(path, tools=tools):
            report = check_schema(*asked, arguments=tools, openai_strict=openai_strict)
            reports.append(report)
            if as_json:
                typer.echo(json.dumps(report.as_dict(), ensure_ascii=False))
    except (OSError, ValueError, yaml.YAMLError) as fault:
        typer.secho(f"Error: {fault}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from fault
    if not as_json:
        _print_table(reports)
    raise typer.Exit(0 if all(report.accepted for report in reports) else 1)


def _read(path: Path | None, *, tools: bool) -> Iterator[_Asked]:
    """Yield the schemas of stdin, of a file or of a folder's JSON and YAML files."""
    if path is None:
        yield from _lines(sys.stdin.read(), "stdin", tools=tools)
        return
    files = [path]
    if path.is_dir():
        files = sorted(
            f for f in path.rglob("*") if f.suffix in {".json", ".jsonl", ".yaml", ".yml"}
        )
    for file in files:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".jsonl":
            yield from _lines(text, file.name, tools=tools)
        else:
            found = yaml.safe_load(text) if file.suffix in {".yaml", ".yml"} else json.loads(text)
            yield from _schemas(found, file.name, tools=tools)


def _lines(text: str, name: str, *, tools: bool) -> Iterator[_Asked]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError as fault:
            msg = f"{name}, line {number}: {fault}"
            raise ValueError(msg) from fault
        yield from _schemas(said, f"{name}:{number}", tools=tools)


def _schemas(said: Any, name: str, *, tools: bool) -> Iterator[_Asked]:
    if tools:
        yield from _tools(said, name)
    elif isinstance(said, Mapping) and "schema" in said and set(said) <= _LINE:
        yield _Asked(str(said.get("name", name)), said["schema"], said.get("instances"))
    else:
        yield _Asked(name, said)


_LINE = {"schema", "instances", "name", "id"}
_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def _tools(said: Any, name: str) -> Iterator[_Asked]:
    """Yield the parameters of tools: OpenAI's, Anthropic's, MCP's or an OpenAPI document's."""
    if isinstance(said, Mapping) and "paths" in said:
        yield from _operations(said)
        return
    if isinstance(said, Mapping):
        said = said.get("result", said)
        said = said.get("tools", said) if isinstance(said, Mapping) else said
    for number, tool in enumerate(said if isinstance(said, list) else [said]):
        described = tool.get("function", tool) if isinstance(tool, Mapping) else {}
        parameters: Any = next(
            (described[k] for k in ("parameters", "inputSchema", "input_schema") if k in described),
            {},
        )
        yield _Asked(str(described.get("name", f"{name}:{number}")), parameters)


def _operations(document: Mapping[str, Any]) -> Iterator[_Asked]:
    shared = {"components": document.get("components", {})}
    for path, item in document["paths"].items():
        for method in _METHODS:
            operation = item.get(method)
            if not isinstance(operation, Mapping):
                continue
            properties = {}
            required = []
            for parameter in [*item.get("parameters", []), *operation.get("parameters", [])]:
                followed = _followed(document, parameter)
                if isinstance(followed, Mapping) and "name" in followed:
                    properties[followed["name"]] = followed.get("schema", {})
                    required += [followed["name"]] if followed.get("required") else []
            body = _followed(document, operation.get("requestBody", {}))
            content = body.get("content", {}).get("application/json", {})
            if "schema" in content:
                properties["body"] = content["schema"]
                required += ["body"] if body.get("required") else []
            name = operation.get("operationId", f"{method} {path}")
            made = {"type": "object", "properties": properties, "required": required}
            yield _Asked(str(name), {**made, **shared})


def _followed(document: Mapping[str, Any], said: Any) -> Any:
    """Return what a parameter or a body refers to."""
    reference = said.get("$ref") if isinstance(said, Mapping) else None
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return said
    found: Any = document
    for step in reference[2:].split("/"):
        found = found.get(step.replace("~1", "/").replace("~0", "~"), {})
    return found


def _print_table(reports: "list[SchemaReport]") -> None:
    width = max((len(report.name) for report in reports), default=4)
    for report in reports:
        told = [f"{report.name:{width}}", f"{report.how:10}", f"{report.ms:8.1f} ms"]
        if report.states is not None:
            told.append(f"{report.states} states")
        if report.pointer:
            told.append(f"{report.pointer}")
        if report.hint:
            told.append(f"({report.hint})")
        colour = None if report.accepted else typer.colors.RED
        typer.secho("  ".join(told), fg=colour)
    counts = Counter(report.how for report in reports)
    typer.echo(f"{len(reports)} schemas: " + ", ".join(f"{n} {how}" for how, n in counts.items()))
