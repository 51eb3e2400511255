"""A tool that is a Python function, run in a process that can be killed, or in a thread."""

import asyncio
import contextvars
import inspect
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from falsework.server.python_worker import call_to_json, load_callable
from falsework.server.tools.config import PythonTool, ToolsFileError
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext, ToolDescription
from falsework.server.tools.executors.process_pool import ProcessPool
from falsework.server.tools.validation import parse_json
from falsework.server.types import Json


class PythonExecutor:
    """Calls a function with the arguments as keywords."""

    def __init__(
        self, config: PythonTool, run_in: str, max_workers: int, cap: int, folder: Path
    ) -> None:
        """Import the function, from `folder` first, as Python does for a script of that folder.

        `max_workers` counts abandoned threads too; `cap` is the size limit of a result in bytes.
        """
        self.upstream = f"python:{config.callable}"
        self._name = config.callable
        self._cap = cap
        self._max_workers = max_workers
        self._processes = ProcessPool(max_workers, cap) if run_in == "process" else None
        self._abandoned: list[Future[bytes]] = []
        if (path := str(folder.resolve())) not in sys.path:
            sys.path.insert(0, path)  # worker processes get the same path
        try:
            self._function = load_callable(config.callable)
        except (ImportError, AttributeError, TypeError) as error:
            raise ToolsFileError(f"python: there is no {config.callable}: {error}") from error

    @property
    def leaked_threads(self) -> int:
        """The number of threads that still run a call that was given up."""
        self._abandoned = [future for future in self._abandoned if not future.done()]
        return len(self._abandoned)

    async def describe(self) -> ToolDescription:
        """Return the function's docstring."""
        return ToolDescription(inspect.getdoc(self._function) or "")

    async def execute(self, arguments: Json, attempt: AttemptContext) -> Any:
        """Return the function's result."""
        if self._processes:
            return _parse_result(
                await self._processes.call(self._name, arguments, attempt), self._cap
            )
        return _parse_result(await self._run_in_thread(arguments, attempt), self._cap)

    async def aclose(self) -> None:
        """Kill the processes; threads are daemons, which don't keep the server alive."""
        if self._processes:
            await self._processes.aclose()

    async def _run_in_thread(self, arguments: Json, attempt: AttemptContext) -> bytes:
        if self.leaked_threads >= self._max_workers:
            raise ToolCallError(
                "overloaded", "Calls that were given up still hold the tool's threads."
            )

        def run() -> bytes:
            attempt.sent = True
            return call_to_json(self._name, arguments)

        running = _start_daemon(self.upstream, contextvars.copy_context(), run)
        try:
            return await asyncio.wrap_future(running)
        finally:
            self._abandoned.append(running)


def _start_daemon(
    name: str, context: contextvars.Context, run: Callable[[], bytes]
) -> Future[bytes]:
    """Run a function in a thread of its own; an executor's threads would be waited for at exit."""
    future = Future[bytes]()

    def work() -> None:
        future.set_running_or_notify_cancel()
        future.set_result(context.run(run))  # which returns errors, too

    threading.Thread(target=work, name=name, daemon=True).start()
    return future


def _parse_result(output: bytes, cap: int) -> Any:
    if len(output) > cap:
        raise ToolCallError("too_large", f"The tool's answer has more than {cap} bytes.", sent=True)
    try:
        result = parse_json(output)
    except ValueError as error:
        raise ToolCallError(
            "bad_response", "The tool's answer isn't valid JSON.", sent=True
        ) from error
    if "value" not in result:
        raise ToolCallError(result["kind"], result["message"], result.get("reason", ""), sent=True)
    return result["value"]
