"""The commands of the documents, run as they stand there: in a clone, at the documented port."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.documents import ROOT, block
from support.server_process import START_SECONDS, is_open

PORT = 8000
"""The one of the documents."""

SERVE, CURL = (block("README.md", "console", number).commands[0] for number in (0, 1))
SERVE_CRM, RUN_CRM = block("README.md", "console", 2).commands
RUN = (SERVE, CURL, SERVE_CRM, RUN_CRM)
"""What tests/e2e/test_documented_commands.py runs."""

STAMPS = (".runtime", ".dev")
"""What the Makefile takes for a virtual environment that is up to date, in their order."""


def clone(folder: Path) -> Path:
    """Make a clone that is ready to run: links to our files, and to the environment of this run."""
    for path in ROOT.iterdir():
        if path.name != ".venv":
            (folder / path.name).symlink_to(path)
    environment = folder / ".venv"
    environment.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name not in STAMPS:
            (environment / path.name).symlink_to(path)
    for name in STAMPS:
        (environment / name).touch()
    return folder


@contextmanager
def served(command: str, folder: Path, max_model_len: int) -> Iterator[Path]:
    """Run a command that serves until it is ended; yield what it prints."""
    assert not is_open(PORT), f"the documents' port, {PORT}, is taken here"
    log = folder / "log.txt"
    settings = {
        "FALSEWORK_DATABASE": f"sqlite:///{folder}/kept.db",
        "FALSEWORK_MAX_MODEL_LEN": str(max_model_len),
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, stdout=file, stderr=file,
            env=os.environ | settings, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until_ready(process, log)
        yield log
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ready", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    pytest.fail(f"the server wasn't ready within {START_SECONDS} s:\n{log.read_text()}")


def run(command: str, folder: Path, text: str = "") -> str:
    """Run a command and return what it prints; it must end with 0."""
    ended = subprocess.run(
        ["bash", "-c", command], cwd=folder, input=text, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout
