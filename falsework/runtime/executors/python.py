"""A tool that is a function: in a process that can be stopped, or in a thread that can't."""

import asyncio
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_process
import anyio.to_thread

from falsework.runtime.entries import Python
from falsework.runtime.executors.base import Described, Json, Ticket
from falsework.runtime.faults import RAISED, Fault
from falsework.runtime.toolsfile import BadToolsFile


class ToolError(Exception):
    """What a function raises to tell the model, in its own words, why it failed."""


class PythonExecutor:
    """Calls a function with the arguments by name."""

    def __init__(self, asked: Python, run_in: str, places: int) -> None:
        """`places` bounds the processes or threads of this tool, abandoned ones included."""
        self.upstream = f"python:{asked.callable}"
        self.leaked = 0
        self._name = asked.callable
        self._in_process = run_in == "process"
        self._places = anyio.CapacityLimiter(places)
        loaded(asked.callable)

    async def describe(self) -> Described:
        """Return the function's docstring."""
        return Described(inspect.getdoc(loaded(self._name)) or "")

    async def attempt(self, arguments: Json, ticket: Ticket) -> Any:
        """Return what the function returns."""
        ticket.sent = True
        try:
            return await (self._process(arguments) if self._in_process else self._thread(arguments))
        except ToolError as fault:
            raise Fault("tool_error", str(fault), sent=True) from fault
        except Fault:
            raise
        except anyio.BrokenWorkerProcess as fault:
            raise Fault("unavailable", "The tool's process died.", "crash", sent=True) from fault
        except Exception as fault:  # the tool is somebody else's code
            message = f"The tool failed with {type(fault).__name__}."
            raise Fault("tool_error", message, RAISED, sent=True) from fault

    async def _process(self, arguments: Json) -> Any:
        return await anyio.to_process.run_sync(
            called, self._name, arguments, cancellable=True, limiter=self._places
        )

    async def _thread(self, arguments: Json) -> Any:
        over = False
        loop = asyncio.get_running_loop()

        def ended() -> None:
            if over:
                self.leaked -= 1

        def run() -> Any:
            try:
                return called(self._name, arguments)
            finally:
                loop.call_soon_threadsafe(ended)

        try:
            return await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._places)
        except anyio.get_cancelled_exc_class():
            over = True
            self.leaked += 1
            raise


@functools.cache
def loaded(name: str) -> Callable[..., Any]:
    """Return the function of `module:function`; raise BadToolsFile."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for step in path.split("."):
            found = getattr(found, step)
    except (ImportError, AttributeError) as fault:
        raise BadToolsFile(f"python: there is no {name}: {fault}") from fault
    if not callable(found):
        raise BadToolsFile(f"python: {name} can't be called")
    function: Callable[..., Any] = found
    return function


def called(name: str, arguments: Json) -> Any:
    """Call a function, in whatever process or thread this is."""
    result = loaded(name)(**arguments)
    return asyncio.run(result) if inspect.iscoroutine(result) else result
