"""The command line: helps, errors, and what is printed once the server is ready."""

import asyncio
import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from falsework import __version__
from falsework.server.cli.banner import startup_banner
from falsework.server.cli.main import app
from falsework.server.cli.process import bind, run_server
from falsework.server.settings import ConfigError, Settings, flag_name


def ran(*words: str, environment: dict[str, str] | None = None) -> Result:
    variables = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1", **(environment or {})}
    return CliRunner().invoke(app, words, env=variables)


def test_the_version_is_told() -> None:
    assert ran("--version").output == f"falsework {__version__}\n"


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_lists_the_commands(words: list[str]) -> None:
    assert "serve" in ran(*words).output


@pytest.mark.parametrize("name", set(Settings.model_fields) - {"model"})
def test_help_names_every_setting(name: str) -> None:
    assert flag_name(name) in ran("serve", "--help").output


@pytest.mark.parametrize("name", ["copy_drafts", "enforce_eager"])
def test_what_is_on_or_decides_itself_can_be_turned_off(name: str) -> None:
    output = ran("serve", flag_name(name).replace("--", "--no-", 1), "--port", "99999").output

    assert "--port" in output
    assert "No such option" not in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonesuch"], "no model 'nonesuch'. Built in: smollm2"),
        (["--dialect", "klingon"], "'klingon'. There is: auto, deepseek_r1, hermes, llama3"),
        (["--port", "99999"], "--port"),
        (["--prot", "1"], "--port"),
        (["--host", "0.0.0.0"], "allow_open"),
        (["--config", "/nowhere/x.toml"], "/nowhere/x.toml"),
    ],
)
def test_a_wrong_word_is_an_error_that_says_what_there_is(words: list[str], said: str) -> None:
    result = ran("serve", *words)

    assert result.exit_code == 2
    assert said in result.output


def test_a_wrong_variable_is_an_error_that_names_it() -> None:
    result = ran("serve", environment={"FALSEWORK_PROT": "1"})

    assert result.exit_code == 2
    assert "FALSEWORK_PROT" in result.output


def test_the_greeting_says_where_the_models_family_is_unknown() -> None:
    said = startup_banner(Settings(), "scaffold", 8123)

    assert "scaffold (its template shows no tool calls that we know" in said
    assert "shows no tool calls" not in startup_banner(Settings(), "hermes", 8123)


def test_the_greeting_has_a_line_for_the_shell_that_makes_a_call() -> None:
    said = startup_banner(Settings(served_model_name="it's mine", api_key=("k",)), "hermes", 8123)

    line = next(line for line in said.splitlines() if line.startswith("curl "))
    words = shlex.split(line)
    body = json.loads(words[words.index("-d") + 1])

    assert "hermes" in said
    assert words[1] == "http://127.0.0.1:8123/v1/chat/completions"
    assert any(word.startswith("authorization: Bearer") for word in words)
    assert (body["model"], body["tool_choice"]) == ("it's mine", "required")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:1/v1"),
        ("::", "http://[::1]:1/v1"),
        ("::1", "http://[::1]:1/v1"),
    ],
)
def test_the_url_is_one_that_this_machine_can_reach(host: str, url: str) -> None:
    assert url in startup_banner(Settings(host=host, allow_open=True), "hermes", 1)


def test_a_taken_port_is_told_before_a_model_is_loaded_and_the_database_is_touched(
    tmp_path: Path,
) -> None:
    database = tmp_path / "kept.db"
    with bind(Settings(port=0)) as held:
        held.listen()
        port = held.getsockname()[1]
        settings = Settings(port=port, database=f"sqlite:///{database}")

        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} can't be listened on"):
            asyncio.run(run_server(settings, "no model", print))

    assert not database.exists()
