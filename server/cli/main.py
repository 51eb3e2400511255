"""The command line: `falsework serve MODEL`, its flags made from the settings."""

import asyncio
import inspect
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from falsework import __version__
from falsework.bench import EndpointError
from falsework.prompts import UnusableModel
from falsework.prompts.dialects import DIALECTS
from falsework.server.cli.engine_log import apply_engine_level
from falsework.server.cli.schema import app as schema_commands
from falsework.server.cli.tools import app as tools_commands
from falsework.server.errors import BadRequestError
from falsework.server.models import UnknownModel, resolve_model
from falsework.server.settings import CONFIG_VARIABLE, ConfigError, Settings, flag_name, load
from falsework.server.tools.config import ToolsFileError

apply_engine_level()  # the engine's process imports this file first, and vLLM after it

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")

app.add_typer(schema_commands, name="schema", help="Tell how JSON Schemas are served.")
app.add_typer(tools_commands, name="tools", help="Check a tools file, or call one of its tools.")

HIDDEN_DEFAULTS: tuple[Any, ...] = (None, "", ())
"""Defaults that an option's help text leaves out: its sentence says what happens."""

LIST_FLAGS = ("allowed_hosts", "allowed_origins", "api_key")
FLAG_TYPES: Mapping[Any, Any] = dict.fromkeys(LIST_FLAGS, list[str])
"""Types of flags where they aren't those of the settings."""

METAVARS = dict.fromkeys(LIST_FLAGS, "<str>")

PANELS = {"model": "Model", "host": "Endpoint", "max_body_bytes": "Limits", "device": "Engine"}
"""Headings of `serve --help`, each by the first setting under it."""


def _print_version(requested: bool) -> None:
    if requested:
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
    from falsework.server.cli.process import EngineLostError, run_server  # noqa: PLC0415
    from falsework.server.engines import EngineStartError  # noqa: PLC0415

    try:
        settings = load(flags, config)
        _check_dialect(settings.dialect)
        model_path = resolve_model(settings.model, typer.echo)
        asyncio.run(run_server(settings, model_path, typer.echo))
    except (ConfigError, EngineStartError, ToolsFileError, UnknownModel, UnusableModel) as error:
        typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from error
    except EngineLostError as error:
        typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(os.EX_SOFTWARE) from error
    except asyncio.CancelledError as ended:
        # SIGTERM came before there was anything to drain.
        raise typer.Exit(128 + signal.SIGTERM) from ended


def _check_dialect(name: str) -> None:
    known = ["auto", *sorted(DIALECTS)]
    if name not in known:
        raise ConfigError(f"dialect: there is no '{name}'. There is: {', '.join(known)}.")


def _parameters() -> list[inspect.Parameter]:
    """Return the signature of `serve`: MODEL, --config, and a flag for each other setting."""
    config = typer.Option(None, "--config", help=f"The TOML file; or {CONFIG_VARIABLE}.")
    parameters = [_parameter("config", Path, config)]
    panel = ""
    for name, field in Settings.model_fields.items():
        panel = PANELS.get(name, panel)
        parameters.append(
            _parameter("model", str, typer.Argument(None, metavar="MODEL", help=_help(field)))
            if name == "model"
            else _option(name, field, panel)
        )
    return parameters


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    by_name = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, by_name, default=default, annotation=kind | None)


def _option(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    option = typer.Option(
        None,
        _spelling(name, field),
        help=_help(field),
        metavar=METAVARS.get(name),
        rich_help_panel=panel,
    )
    return _parameter(name, FLAG_TYPES.get(name, field.annotation), option)


def _spelling(name: str, field: FieldInfo) -> str:
    # What is on or decided by itself can be turned off as well; what is off can only be turned on.
    both = field.annotation == bool | None or field.default is True
    return f"{flag_name(name)}/--no-{flag_name(name)[2:]}" if both else flag_name(name)


def _help(field: FieldInfo) -> str:
    if field.default in HIDDEN_DEFAULTS or field.default is False:
        return str(field.description)
    return f"{field.description} Default: {field.default}."


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
    from falsework.bench import print_table  # noqa: PLC0415 - only needed here

    try:
        asyncio.run(print_table(base_url, runs, only, key, typer.echo))
    except EndpointError as error:
        typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from error


@app.command()
def prompt(  # noqa: PLR0913 - the options of the command line
    model: Annotated[
        str, typer.Argument(help="smollm2, a folder, or a name on the hub; no weights needed.")
    ],
    request: Annotated[
        str, typer.Argument(help="A JSON file with a chat request; - is standard input.")
    ] = "-",
    *,
    chat_template: Annotated[
        str, typer.Option(help="A file with a chat template, in place of the model's own.")
    ] = "",
    dialect: Annotated[str, typer.Option(help="The dialect; auto asks the template.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    admits: Annotated[
        str | None, typer.Option(help="Say whether a reply may be this text, and how it is read.")
    ] = None,
) -> None:
    """Show the prompt that MODEL gets for REQUEST, with its control tokens marked.

    No engine is started: tokenizer and chat template are enough.
    """
    from falsework.server.cli.prompt import report  # noqa: PLC0415 - it imports numba, see serve

    try:
        body = sys.stdin.buffer.read() if request == "-" else Path(request).read_bytes()
        shown = report(model, body, chat_template=chat_template, dialect=dialect, admits=admits)
    except (OSError, UnknownModel, UnusableModel, BadRequestError, ConfigError) as fault:
        typer.secho(f"Error: {fault}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from fault
    typer.echo(json.dumps(shown.fields, ensure_ascii=False) if as_json else str(shown))


vars(serve)["__signature__"] = inspect.Signature(_parameters())
app.command()(serve)


if __name__ == "__main__":
    app()
