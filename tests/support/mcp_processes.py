"""MCP servers of the tests, over HTTP in a process of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

SCRIPT = str(Path(__file__).parent / "mcp_server.py")


@contextmanager
def over_http(port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "http", str(port)],
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                httpx2.get(f"http://127.0.0.1:{port}/")
            except httpx2.TransportError:
                time.sleep(0.05)
            else:
                break
        yield process
    finally:
        process.kill()
        process.wait()
