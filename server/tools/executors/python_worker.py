"""Functions that are tools, on their own side of the boundary: called, and their end told as JSON.

A process that calls functions imports this and nothing else of ours, to be there at once.
"""

import asyncio
import functools
import importlib
import inspect
import json
import os
from collections.abc import Callable
from typing import Any

from falsework.server.tools.errors import UNHANDLED_EXCEPTION

Json = dict[str, Any]


class ToolError(Exception):
    """What a function raises to tell the model, in its own words, why it failed."""


@functools.cache
def load_callable(name: str) -> Callable[..., Any]:
    """Return the function of `module:function`; raise ImportError, AttributeError or TypeError."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for step in path.split("."):
        found = getattr(found, step)
    if not callable(found):
        raise TypeError("it can't be called")
    function: Callable[..., Any] = found
    return function


def call_to_json(name: str, arguments: Json) -> bytes:
    """Call a function and return how that ended, as a line of JSON; nothing is raised."""
    try:
        result = load_callable(name)(**arguments)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except ToolError as fault:
        return _line({"kind": "tool_error", "message": str(fault)})
    except BaseException as fault:  # noqa: BLE001 - somebody else's code, which may even exit
        message = f"The tool failed with {type(fault).__name__}."
        return _line({"kind": "tool_error", "message": message, "reason": UNHANDLED_EXCEPTION})
    try:
        return _line({"value": result})
    except (TypeError, ValueError, RecursionError):
        message = f"The tool returned a {type(result).__name__} that can't be written as JSON."
        return _line({"kind": "bad_response", "message": message})


def _line(end: Json) -> bytes:
    text = json.dumps(end, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def worker_main() -> None:
    """Answer each line of the standard input, a function and its arguments, with how it ended."""
    asked, told = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # what the function reads and prints is none of ours
        os.dup2(nothing, standard)
    for line in asked:
        told.write(call_to_json(**json.loads(line)))
