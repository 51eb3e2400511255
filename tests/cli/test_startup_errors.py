"""What is wrong with a model or a setting is said in a sentence, before the engine is started."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from falsework.server.cli import process
from falsework.server.cli.main import app

Json = dict[str, Any]

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(4)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n"


class EngineStarted(Exception):
    """Raised where the engine would be started."""


@pytest.fixture
def model(smollm2: Path, tmp_path: Path) -> Path:
    """Give a folder with all that the checks look at."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in smollm2.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Give what runs the command; it ends where the engine is started."""

    async def start(*_: object) -> None:
        raise EngineStarted

    monkeypatch.setattr(process, "_start_engine", start)
    monkeypatch.setenv("COLUMNS", "10000")

    def run(*words: str | Path) -> Result:
        settings = ["--port", "0", "--device", "cpu", "--dtype", "float32"]
        if "--database" not in words:
            settings += ["--database", f"sqlite:///{tmp_path}/responses.db"]
        return CliRunner().invoke(app, ["serve", *map(str, words), *settings])

    return run


def assert_refused(result: Result, *parts: str) -> None:
    """One sentence that holds all parts, and exit status 2."""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert [part for part in parts if part not in line] == []
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("config.json", None, ["no config.json"]),
        ("config.json", b"{", ["broken config.json"]),
        ("config.json", b"[]", ["broken config.json"]),
        ("config.json", b"\xff", ["broken config.json"]),
        ("config.json", b"{}", ["config.json", "model_type"]),
        ("model.safetensors", None, ["no weights", "*.safetensors"]),
        ("model.safetensors", b"", ["model.safetensors", "empty"]),
        ("model.safetensors", POINTER, ["model.safetensors", "git-lfs"]),
        ("model.safetensors", WEIGHTS[:-1], ["model.safetensors", "cut short"]),
        ("tokenizer.json", None, ["no tokenizer", "tokenizer.json"]),
        ("tokenizer.json", b"{", ["tokenizer", "can't be loaded"]),
        ("tokenizer.json", b'{"model": 1}', ["tokenizer", "can't be loaded"]),
        ("tokenizer_config.json", b"{", ["tokenizer", "can't be loaded"]),
    ],
)
def test_a_model_that_cannot_be_loaded(
    serve: Callable[..., Result], model: Path, name: str, content: bytes | None, parts: list[str]
) -> None:
    if content is None:
        (model / name).unlink()
    else:
        (model / name).write_bytes(content)

    assert_refused(serve(model), *parts)


def test_a_template_that_is_missing(serve: Callable[..., Result], model: Path) -> None:
    (model / "chat_template.jinja").unlink()

    assert_refused(serve(model), "chat template", "--chat-template")


@pytest.mark.parametrize(
    ("constant", "value"), [("HF_HUB_OFFLINE", True), ("ENDPOINT", "http://127.0.0.1:9")]
)
def test_a_hub_that_cannot_be_reached(
    serve: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    constant: str,
    value: object,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(f"huggingface_hub.constants.{constant}", value)

    assert_refused(serve("no-such-owner/no-such-model"), "no-such-owner/no-such-model", "HF_TOKEN")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["--max-model-len", "8193"], ["max_model_len", "8192"]),
        (["--kv-cache-gib", "100000"], ["kv_cache_gib", "memory"]),
        (["--kv-cache-gib", "0.1"], ["kv_cache_gib", "0.36", "max_model_len"]),
        (["--database", "nonsense"], ["database", "sqlite:///"]),
        (["--database", "postgresql://me@host:port/x"], ["database", "postgresql://"]),
        (["--database", "mysql://me@host/x"], ["database", "sqlite://"]),
        (["--database", "sqlite:////proc/nowhere/x.db"], ["database", "/proc/nowhere/x.db"]),
        (["--tools", "/nowhere/tools.yaml"], ["/nowhere/tools.yaml"]),
    ],
)
def test_a_setting_that_the_model_or_the_machine_does_not_allow(
    serve: Callable[..., Result], model: Path, settings: list[str], parts: list[str]
) -> None:
    assert_refused(serve(model, *settings), *parts)


def test_a_cache_is_measured_by_the_length_that_is_asked_for(
    serve: Callable[..., Result], model: Path
) -> None:
    """45 KiB a token in float32: 2,048 of them need 0.088 GiB."""
    length = ["--max-model-len", "2048", "--kv-cache-gib"]

    assert_refused(serve(model, *length, "0.08"), "0.09")
    assert isinstance(serve(model, *length, "0.09").exception, EngineStarted)


@pytest.mark.parametrize(
    ("tool", "part"),
    [
        ({"http": {"url": "http://x/", "headers": {"x-key": "${MISSING}"}}}, "MISSING"),
        ({"python": {"callable": "nowhere:f"}}, "nowhere:f"),
    ],
)
def test_a_tool_that_cannot_be_run(
    serve: Callable[..., Result], model: Path, tmp_path: Path, tool: Json, part: str
) -> None:
    file = tmp_path / "tools.json"
    file.write_text(json.dumps({"tools": [{"name": "t", "parameters": {}, **tool}]}))

    assert_refused(serve(model, "--tools", file), part)
