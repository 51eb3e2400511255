"""A real PostgreSQL of the tests' own: Debian's package, its data in a folder of theirs."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.server_process import free_port

DEBIAN = "/usr/lib/postgresql"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest of them."""
    found = sorted(Path(DEBIAN).glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


class PostgreSQL:
    """A server that listens on the loopback alone, and can be stopped and started again."""

    def __init__(self, bin_folder: Path, folder: Path) -> None:
        self._programs = bin_folder
        self._data = folder / "data"
        self._port = free_port()
        self.url = f"postgresql://tests@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "-D", self._data, "-U", "tests", "--auth=trust", "-N")

    def start(self) -> None:
        options = f"-p {self._port} -h 127.0.0.1 -k {self._data} -F"
        log = self._data / "log"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """End it as a crash does: connections break, nothing is written down."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str | Path) -> None:
        as_user: Sequence[str] = ()
        if os.geteuid() == 0:  # it refuses to run as root
            as_user = ("runuser", "-u", "postgres", "--")
        command = [*as_user, str(self._programs / program), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd="/")


@contextmanager
def postgresql_server() -> Iterator[PostgreSQL]:
    """Run a server of the tests' own."""
    bin_folder = programs()
    assert bin_folder is not None, "PostgreSQL isn't installed"
    folder = Path(tempfile.mkdtemp())  # pytest's own are closed to other users
    folder.chmod(0o777)
    server = PostgreSQL(bin_folder, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a server; its URL."""
    with postgresql_server() as server:
        yield server.url
