"""Ending processes that were started with a session of their own."""

import os
import signal
from contextlib import suppress

import anyio
from anyio.abc import Process

REAP_SECONDS = 1.0


async def kill_process(process: Process) -> None:
    """Kill a process and its children."""
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it may have ended unnoticed
            os.killpg(process.pid, signal.SIGKILL)
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + REAP_SECONDS):
        await process.aclose()
