"""Processes that call functions: kept for the next call, and killed when a call is given up.

anyio's own (to_process) outlive a call that is cancelled while they start.
"""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext, Json

WORKER_SCRIPT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from falsework.server.tools.executors.python_worker import worker_main; worker_main()"
)
IDLE_SECONDS = 300.0
REAP_SECONDS = 1.0


class ProcessPool:
    """The processes of one tool."""

    def __init__(self, most: int, cap: int) -> None:
        """`most` bounds the processes, `cap` the bytes of an answer."""
        self._places = anyio.CapacityLimiter(most)
        self._cap = cap
        self._idle: deque[tuple[float, Process]] = deque()

    async def call(self, name: str, arguments: Json, ticket: AttemptContext) -> bytes:
        """Call a function and return how that ended, as JSON; raise a Fault."""
        line = json.dumps({"name": name, "arguments": arguments}).encode() + b"\n"
        async with self._places:
            process = await self._taken()
            try:
                ticket.sent = True
                end = await _answer(process, line, self._cap)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError) as fault:
                await _kill(process)
                message = "The tool's process died."
                raise ToolCallError("unavailable", message, "crash", sent=True) from fault
            except BaseException:  # cancelled, too: nobody else would end it
                await _kill(process)
                raise
            self._idle.append((anyio.current_time(), process))
        return end

    async def aclose(self) -> None:
        """End the processes."""
        while self._idle:
            await _kill(self._idle.pop()[1])

    async def _taken(self) -> Process:
        while self._idle and self._idle[0][0] < anyio.current_time() - IDLE_SECONDS:
            await _kill(self._idle.popleft()[1])
        while True:
            if not self._idle:
                await self._start()
            process = self._idle.pop()[1]
            if process.returncode is None:
                return process

    async def _start(self) -> None:
        with anyio.CancelScope(shield=True):  # whoever starts it has to be able to end it
            process = await anyio.open_process(
                [sys.executable, "-c", WORKER_SCRIPT, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is the server's, which lets writes finish
            )
            self._idle.append((anyio.current_time(), process))


async def _answer(process: Process, line: bytes, cap: int) -> bytes:
    assert process.stdin is not None, "it was opened with pipes"
    assert process.stdout is not None, "it was opened with pipes"
    await process.stdin.send(line)
    try:
        return await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", cap)
    except anyio.DelimiterNotFound as fault:
        message = f"The tool's answer has more than {cap} bytes."
        raise ToolCallError("too_large", message, sent=True) from fault


async def _kill(process: Process) -> None:
    """End a process and whatever it has started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it may have ended unnoticed
            os.killpg(process.pid, signal.SIGKILL)
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + REAP_SECONDS):
        await process.aclose()
