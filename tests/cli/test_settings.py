"""Settings: where they come from, which wins, and what is said of a wrong one."""

import os
from pathlib import Path

import pytest

from falsework.server.settings import ConfigError, Settings, env_var, load

Environment = dict[str, str]


def written(folder: Path, text: str) -> Path:
    file = folder / "falsework.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Give the process's variables, without ours; what a test puts in is taken out again."""
    variables = {name: text for name, text in os.environ.items() if "FALSEWORK" not in name}
    monkeypatch.setattr(os, "environ", variables)
    return variables


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, environment: Environment
) -> None:
    file = written(tmp_path, "port = 1\nmax_tools = 1\nmax_messages = 1")
    environment.update({"FALSEWORK_PORT": "2", "FALSEWORK_MAX_TOOLS": "2"})

    settings = load({"port": 3, "host": None}, file)

    assert (settings.port, settings.max_tools, settings.max_messages) == (3, 2, 1)
    assert settings.host == "127.0.0.1"


def test_the_file_can_be_named_by_the_environment(tmp_path: Path, environment: Environment) -> None:
    environment["FALSEWORK_CONFIG"] = str(written(tmp_path, 'model = "org/name"'))

    assert load({}).model == "org/name"


def test_an_empty_variable_is_none(environment: Environment) -> None:
    environment["FALSEWORK_PORT"] = ""

    assert load({}).port == 8000


def test_settings_made_in_code_take_nothing_from_the_environment(environment: Environment) -> None:
    environment["FALSEWORK_PORT"] = "2"

    assert Settings().port == 8000


@pytest.mark.parametrize(
    ("flags", "variables", "text", "named"),
    [
        ({"port": 70000}, {}, "", "--port: "),
        ({}, {"FALSEWORK_PORT": "many"}, "", "FALSEWORK_PORT: "),
        ({}, {}, "port = -1", "port in "),
        ({}, {}, "prot = 1", "prot in .*The nearest is port"),
        ({}, {}, "port = ", "falsework.toml: "),
        ({}, {"FALSEWORK_MODLE": "x"}, "", "FALSEWORK_MODLE: .*The nearest is FALSEWORK_MODEL"),
        ({"device": "tpu"}, {}, "", "--device: .*'cuda'"),
        ({"max_model_len": 1}, {}, "", "--max-model-len: "),
        ({"gpu_memory_utilization": 1.5}, {}, "", "--gpu-memory-utilization: "),
    ],
)
def test_a_wrong_setting_is_named_as_it_was_written(  # noqa: PLR0913 - the columns of a table
    tmp_path: Path,
    environment: Environment,
    flags: dict[str, object],
    variables: Environment,
    text: str,
    named: str,
) -> None:
    environment.update(variables)

    with pytest.raises(ConfigError, match=named):
        load(flags, written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load({}, tmp_path / "nothing.toml")


def test_variables_of_others_are_left_alone(environment: Environment) -> None:
    environment.update({"PORT": "x", "FALSEWORK_CACHE": "/tmp/x"})

    assert load({}) == Settings()


def test_keys_are_a_list_everywhere(tmp_path: Path, environment: Environment) -> None:
    by_flag = load({"api_key": ["a", "b"]})
    by_file = load({}, written(tmp_path, 'api_key = ["a", "b"]'))
    environment["FALSEWORK_API_KEY"] = " a, b,"
    by_variable = load({})

    assert by_flag.api_key == by_variable.api_key == by_file.api_key == ("a", "b")


def test_no_key_is_ever_printed() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"api_key": ["my secret"], "port": 70000})

    assert "my secret" not in str(caught.value)
    assert "my-secret" not in repr(Settings(api_key=("my-secret",)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_a_server_without_keys_listens_on_this_machine_alone(host: str) -> None:
    with pytest.raises(ConfigError, match=f"host: {host} can be reached from other machines"):
        load({"host": host})


@pytest.mark.parametrize(
    "flags",
    [
        {"host": "0.0.0.0", "api_key": ["k"]},
        {"host": "0.0.0.0", "allow_open": True},
        {"host": "127.0.0.2"},
        {"host": "::1"},
        {"host": "localhost"},
    ],
)
def test_it_is_opened_by_a_key_or_in_so_many_words(flags: dict[str, object]) -> None:
    assert load(flags).host == flags["host"]


def test_a_model_is_called_as_it_was_asked_for_or_as_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()

    assert Settings(model="org/name").model_id == "org/name"
    assert Settings(model=str(folder)).model_id == "my-model"
    assert Settings(model=str(folder), served_model_name="n").model_id == "n"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_its_sentence_and_its_variable(name: str) -> None:
    field = Settings.model_fields[name]

    assert field.description is not None
    assert field.description.endswith(".")
    assert env_var(name).startswith("FALSEWORK_")
