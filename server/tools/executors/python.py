"""A tool that is a function: in a process that can be stopped, or in a thread that can't."""

import asyncio
import contextvars
import inspect
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from falsework.server.tools.config.loader import ToolsFileError
from falsework.server.tools.config.schema import PythonTool
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.executors.base import AttemptContext, Json, ToolDescription
from falsework.server.tools.executors.process_pool import ProcessPool
from falsework.server.tools.executors.python_worker import call_to_json, load_callable
from falsework.server.tools.validation import parse_json


class PythonExecutor:
    """Calls a function with the arguments by name."""

    def __init__(self, asked: PythonTool, run_in: str, places: int, cap: int) -> None:
        """`places` bounds processes or threads, abandoned ones included; `cap` answers' bytes."""
        self.upstream = f"python:{asked.callable}"
        self._name = asked.callable
        self._cap = cap
        self._places = places
        self._workers = ProcessPool(places, cap) if run_in == "process" else None
        self._threads = ThreadPoolExecutor(places, thread_name_prefix=self.upstream)
        self._abandoned: list[Future[bytes]] = []
        try:
            self._function = load_callable(asked.callable)
        except (ImportError, AttributeError, TypeError) as fault:
            raise ToolsFileError(f"python: there is no {asked.callable}: {fault}") from fault

    @property
    def leaked_threads(self) -> int:
        """How many threads still run whose call was given up."""
        self._abandoned = [one for one in self._abandoned if not one.done()]
        return len(self._abandoned)

    async def describe(self) -> ToolDescription:
        """Return the function's docstring."""
        return ToolDescription(inspect.getdoc(self._function) or "")

    async def execute(self, arguments: Json, ticket: AttemptContext) -> Any:
        """Return what the function returns."""
        if self._workers:
            return _value(await self._workers.call(self._name, arguments, ticket), self._cap)
        return _value(await self._thread(arguments, ticket), self._cap)

    async def aclose(self) -> None:
        """End the processes, and leave the threads to themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._workers:
            await self._workers.aclose()

    async def _thread(self, arguments: Json, ticket: AttemptContext) -> bytes:
        if self.leaked_threads >= self._places:
            raise ToolCallError(
                "overloaded", "Calls that were given up still hold the tool's threads."
            )

        def run() -> bytes:
            ticket.sent = True
            return call_to_json(self._name, arguments)

        running = self._threads.submit(contextvars.copy_context().run, run)
        try:
            return await asyncio.wrap_future(running)
        finally:
            self._abandoned.append(running)


def _value(end: bytes, cap: int) -> Any:
    if len(end) > cap:
        raise ToolCallError("too_large", f"The tool's answer has more than {cap} bytes.", sent=True)
    try:
        said = parse_json(end)
    except ValueError as fault:
        raise ToolCallError(
            "bad_response", "The tool's answer isn't valid JSON.", sent=True
        ) from fault
    if "value" not in said:
        raise ToolCallError(said["kind"], said["message"], said.get("reason", ""), sent=True)
    return said["value"]
