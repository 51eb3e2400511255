"""The command line: `falsework serve MODEL`, its flags made from the settings."""

import asyncio
import inspect
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from falsework import __version__
from falsework.bench.endpoint import EndpointError
from falsework.prompts.dialects import DIALECTS
from falsework.server.cli.schema import app as schema_commands
from falsework.server.cli.tools import app as tools_commands
from falsework.server.models import UnknownModel, resolve_model
from falsework.server.settings import CONFIG_VARIABLE, ConfigError, Settings, flag_name, load
from falsework.server.tools.config.loader import ToolsFileError

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")

app.add_typer(schema_commands, name="schema", help="Tell how JSON Schemas are served.")
app.add_typer(tools_commands, name="tools", help="Check a tools file, or call one of its tools.")

HIDDEN_DEFAULTS: tuple[Any, ...] = (None, "", ())
"""Defaults that an option's help doesn't name: the sentence says what happens."""

FLAG_TYPES: Mapping[Any, Any] = {"api_key": list[str]}
"""Kinds of flags where they aren't those of the settings."""

METAVARS = {"api_key": "<str>"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"falsework {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Serve open models whose tool calls always fit their schemas, to OpenAI's clients."""


def serve(config: Path | None = None, **flags: Any) -> None:
    """Serve MODEL at http://HOST:PORT/v1 until SIGTERM or Ctrl-C.

    Every option is also a variable (--max-tools: FALSEWORK_MAX_TOOLS) and a key of the TOML file
    (max_tools). Options win over variables, variables over the file.
    """
    # vLLM's CPU workers import this file first, and fail where it has imported numba.
    from falsework.server.cli.process import run_server  # noqa: PLC0415

    try:
        settings = load(flags, os.environ, config)
        _check_dialect(settings.dialect)
        model_path = resolve_model(settings.model, typer.echo)
        asyncio.run(run_server(settings, model_path, typer.echo))
    except (ConfigError, ToolsFileError, UnknownModel) as fault:
        typer.secho(f"Error: {fault}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from fault
    except asyncio.CancelledError as ended:
        # SIGTERM came before there was anything to drain.
        raise typer.Exit(128 + signal.SIGTERM) from ended


def _check_dialect(name: str) -> None:
    known = ["auto", *sorted(DIALECTS)]
    if name not in known:
        raise ConfigError(f"dialect: there is no '{name}'. There is: {', '.join(known)}.")


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    extra = field.json_schema_extra
    option = typer.Option(
        None,
        _spelling(name, field),
        help=_help(field),
        metavar=METAVARS.get(name),
        rich_help_panel=str(extra["panel"]) if isinstance(extra, dict) else None,
    )
    return _parameter(name, FLAG_TYPES.get(name, field.annotation), option)


def _spelling(name: str, field: FieldInfo) -> str:
    # What is on or decided by itself can be turned off as well; what is off can only be turned on.
    both = field.annotation == bool | None or field.default is True
    return f"{flag_name(name)}/--no-{flag_name(name)[2:]}" if both else flag_name(name)


def _help(field: FieldInfo) -> str:
    said = (
        ""
        if field.default in HIDDEN_DEFAULTS or field.default is False
        else f" Default: {field.default}."
    )
    return f"{field.description}{said}"


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    by_name = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, by_name, default=default, annotation=kind | None)


def _parameters() -> list[inspect.Parameter]:
    fields = dict(Settings.model_fields)
    model = typer.Argument(None, metavar="MODEL", help=_help(fields.pop("model")))
    config = typer.Option(None, "--config", help=f"The TOML file; or {CONFIG_VARIABLE}.")
    return [
        _parameter("model", str, model),
        _parameter("config", Path, config),
        *(_option(name, field) for name, field in fields.items()),
    ]


@app.command()
def bench(
    base_url: Annotated[list[str], typer.Argument(help="An endpoint, as in …/v1; or several.")],
    *,
    runs: Annotated[int, typer.Option(min=1, help="How often each case is timed.")] = 9,
    only: Annotated[str, typer.Option(help="Cases whose name matches this expression.")] = "",
    key: Annotated[
        str, typer.Option(envvar="OPENAI_API_KEY", help="The endpoints' bearer key.")
    ] = "none",
) -> None:
    """Time tool calls at BASE_URL; several endpoints take turns, and the first is compared.

    The cases and their order are those of `make bench`.
    """
    from falsework.bench.main import print_table  # noqa: PLC0415 - only needed here

    try:
        asyncio.run(print_table(base_url, runs, only, key, typer.echo))
    except EndpointError as fault:
        typer.secho(f"Error: {fault}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from fault


vars(serve)["__signature__"] = inspect.Signature(_parameters())
app.command()(serve)


if __name__ == "__main__":
    app()
