"""A pool of processes that call functions: reused, and killed when their call is cancelled.

anyio's own (to_process) outlive a call that is cancelled while they start.
"""

import json
import subprocess
import sys
from collections import deque

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext
from falsework.server.tools.executors.processes import kill_process
from falsework.server.types import Json

WORKER_SCRIPT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from falsework.server.python_worker import worker_main; worker_main()"
)
IDLE_SECONDS = 300.0


class ProcessPool:
    """The worker processes of one tool."""

    def __init__(self, max_processes: int, cap: int) -> None:
        """`cap` is the size limit of a result in bytes."""
        self._slots = anyio.CapacityLimiter(max_processes)
        self._cap = cap
        self._idle: deque[tuple[float, Process]] = deque()

    async def call(self, name: str, arguments: Json, attempt: AttemptContext) -> bytes:
        """Call a function and return the worker's JSON; raise a ToolCallError."""
        line = json.dumps({"name": name, "arguments": arguments}).encode() + b"\n"
        async with self._slots:
            process = await self._take_process()
            try:
                attempt.sent = True
                output = await _exchange(process, line, self._cap)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError) as error:
                await kill_process(process)
                message = "The tool's process died."
                raise ToolCallError("unavailable", message, "crash", sent=True) from error
            except BaseException:  # a cancellation, too: nothing else would end the process
                await kill_process(process)
                raise
            self._idle.append((anyio.current_time(), process))
        return output

    async def aclose(self) -> None:
        """Kill the idle processes."""
        while self._idle:
            await kill_process(self._idle.pop()[1])

    async def _take_process(self) -> Process:
        while self._idle and self._idle[0][0] < anyio.current_time() - IDLE_SECONDS:
            await kill_process(self._idle.popleft()[1])
        while True:
            if not self._idle:
                await self._start()
            process = self._idle.pop()[1]
            if process.returncode is None:
                return process

    async def _start(self) -> None:
        with anyio.CancelScope(
            shield=True
        ):  # a process that was started has to be known, to be killed
            process = await anyio.open_process(
                [sys.executable, "-c", WORKER_SCRIPT, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C goes to the server alone, which lets writes finish
            )
            self._idle.append((anyio.current_time(), process))


async def _exchange(process: Process, line: bytes, cap: int) -> bytes:
    assert process.stdin is not None, "it was opened with pipes"
    assert process.stdout is not None, "it was opened with pipes"
    await process.stdin.send(line)
    try:
        return await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", cap)
    except anyio.DelimiterNotFound as error:
        message = f"The tool's answer has more than {cap} bytes."
        raise ToolCallError("too_large", message, sent=True) from error
