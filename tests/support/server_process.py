"""`falsework serve` in a process of its own, as users start it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KEY = "a-key-of-the-tests"
START_SECONDS = 240


@dataclass(frozen=True)
class Server:
    """A running `falsework serve`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def key(self) -> str:
        return KEY

    def says(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def serving(model: str | Path, log: Path, *settings: str, status: int = 0) -> Iterator[Server]:
    """Run `falsework serve` with a model; at the end it must leave with `status`."""
    port = free_port()
    command = [Path(sys.executable).with_name("falsework"), "serve", model, "--port", str(port)]
    limits = ["--max-concurrent-requests", "16"]
    database = f"sqlite:///{log.with_suffix('.db')}"
    environment = os.environ | {
        "FALSEWORK_API_KEY": f"{KEY},another-key",
        "FALSEWORK_DATABASE": database,
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *settings, *limits], stdout=file, stderr=file, env=environment
        )
    running = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until_ready(running)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    assert code == status, running.says()


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    """Tell whether somebody listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(holds: Callable[[], Any], seconds: float = 5) -> bool:
    """Tell whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(holds())


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"the server ended:\n{server.says()}"
        try:
            with urllib.request.urlopen(f"{server.url}/ready", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    pytest.fail(f"the server wasn't ready within {START_SECONDS} s:\n{server.says()}")
