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


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a server; it listens on the loopback alone."""
    bin_folder = programs()
    assert bin_folder is not None, "PostgreSQL isn't installed"
    folder = Path(tempfile.mkdtemp())  # pytest's own are closed to other users
    folder.chmod(0o777)
    data, port = folder / "data", free_port()
    as_user: Sequence[str] = ()
    if os.geteuid() == 0:  # it refuses to run as root
        as_user = ("runuser", "-u", "postgres", "--")

    def run(*command: str | Path) -> None:
        subprocess.run([*as_user, *map(str, command)], check=True, capture_output=True, cwd="/")

    run(bin_folder / "initdb", "-D", data, "-U", "tests", "--auth=trust", "-N")
    options = f"-p {port} -h 127.0.0.1 -k {data} -F"
    run(bin_folder / "pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start")
    try:
        yield f"postgresql://tests@127.0.0.1:{port}/postgres"
    finally:
        run(bin_folder / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
