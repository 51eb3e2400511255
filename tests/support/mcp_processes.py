"""MCP servers of the tests, over HTTP in a process of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.server_process import eventually, is_open

SCRIPT = str(Path(__file__).parent / "mcp_server.py")


@contextmanager
def over_http(port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "http", str(port)],
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: is_open(port), 60)
        yield process
    finally:
        process.kill()
        process.wait()
