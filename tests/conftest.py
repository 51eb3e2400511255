"""What every test may ask for: the built-in model's folder, and a server that really runs."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from falsework.server.models import resolve_model
from falsework.server.storage.store import Store

if TYPE_CHECKING:
    from falsework.server.generation.turn import TurnBuilder

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


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Give the folder of the built-in model, prepared if need be."""
    return Path(resolve_model("smollm2", print))


@pytest.fixture(scope="session")
def plain(smollm2: Path) -> "TurnBuilder":
    """Give the scaffold of a model without a think block."""
    from houses import scaffold_of  # noqa: PLC0415 - it takes seconds to import

    return scaffold_of(smollm2)


@pytest.fixture(scope="session")
def thinker(smollm2: Path) -> "TurnBuilder":
    """Give the scaffold of a model that thinks first."""
    from houses import scaffold_of  # noqa: PLC0415 - it takes seconds to import

    return scaffold_of(smollm2, thinks=True)


@pytest.fixture(scope="session")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start the real server with the real model."""
    assert smollm2.is_dir()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with serving("smollm2", log, "--max-model-len", "4096") as running:
        yield running


@contextmanager
def serving(model: str | Path, log: Path, *settings: str) -> Iterator[Server]:
    """Run `falsework serve` with a model; at the end it must leave with 0."""
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
    assert code == 0, running.says()


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
        return port


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"the server ended:\n{server.says()}"
        try:
            with urllib.request.urlopen(f"{server.url}/ready", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    pytest.fail(f"the server wasn't ready within {START_SECONDS} s:\n{server.says()}")


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    from databases import postgresql, programs  # noqa: PLC0415 - it needs this file's ports

    if programs() is None:
        pytest.skip("PostgreSQL isn't installed here: on Debian, the package postgresql")
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/kept.db"
    kept: str = request.getfixturevalue("postgresql_url")
    return kept


@pytest.fixture
async def records(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made = await Store.connect(url, request.node.name)
    yield made
    await made.close()
