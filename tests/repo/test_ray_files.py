"""What deploy/ray says is what the code takes; needs no Ray."""

import importlib
import re
from pathlib import Path

import yaml

from falsework.server.replicas.scale import Scale
from falsework.server.settings import Settings

ROOT = Path(__file__).parents[2]
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"


def test_the_arguments_are_settings_or_say_how_many_replicas_there_are() -> None:
    file = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    (each,) = file["applications"]
    arguments = each["args"]

    assert set(arguments) <= set(Settings.model_fields) | set(Scale.model_fields)
    assert Settings(
        **{name: arguments[name] for name in arguments if name in Settings.model_fields}
    )
    assert Scale(**{name: arguments[name] for name in arguments if name in Scale.model_fields})


def test_the_documents_have_a_row_for_each_argument() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.*) \| (.*) \|$", (ROOT / "docs/scaling.md").read_text(), re.MULTILINE
    )
    fields = Scale.model_fields
    defaults = {
        name: "" if fields[name].default is None else fields[name].default for name in fields
    }

    assert rows == [(name, str(defaults[name]), fields[name].description) for name in fields]


def test_no_argument_is_both_a_setting_and_a_scale() -> None:
    assert set(Settings.model_fields) & set(Scale.model_fields) == set()


def test_wherever_rays_proxies_are_told_of_sessions_the_function_is_there() -> None:
    files = [ROOT / "Makefile", *(ROOT / "deploy/ray").iterdir(), ROOT / "docs/scaling.md"]
    said = [re.findall(rf"{CALLBACK} ?= ?([\w.:]+)", file.read_text()) for file in files]
    (path,) = {each for found in said for each in found}
    module, _, name = path.partition(":")

    assert all(said)
    assert callable(getattr(importlib.import_module(module), name))
