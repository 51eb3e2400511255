"""The worker's side of Python tools: calls a function and returns its result as a line of JSON.

A worker process imports this and little else, to start quickly; so it lies outside the folder of
tools, whose exports import all of them.
"""

import asyncio
import functools
import importlib
import inspect
import json
import os
from collections.abc import Callable
from typing import Any

from falsework.server.types import Json

UNHANDLED_EXCEPTION = "exception"
"""The reason of an exception that a tool didn't raise on purpose."""


class ToolError(Exception):
    """Raised by a function to give the model a message of its own."""


@functools.cache
def load_callable(name: str) -> Callable[..., Any]:
    """Return the function of `module:function`; raise ImportError, AttributeError or TypeError."""
    module, _, path = name.partition(":")
    target: Any = importlib.import_module(module)
    for step in path.split("."):
        target = getattr(target, step)
    if not callable(target):
        raise TypeError("it can't be called")
    function: Callable[..., Any] = target
    return function


def call_to_json(name: str, arguments: Json) -> bytes:
    """Call a function and return its value or error as a line of JSON; nothing is raised."""
    try:
        result = load_callable(name)(**arguments)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except ToolError as error:
        return _to_line({"kind": "tool_error", "message": str(error)})
    except BaseException as error:  # noqa: BLE001 - foreign code, which may even exit
        message = f"The tool failed with {type(error).__name__}."
        return _to_line({"kind": "tool_error", "message": message, "reason": UNHANDLED_EXCEPTION})
    try:
        return _to_line({"value": result})
    except (TypeError, ValueError, RecursionError):
        message = f"The tool returned a {type(result).__name__} that can't be written as JSON."
        return _to_line({"kind": "bad_response", "message": message})


def _to_line(outcome: Json) -> bytes:
    text = json.dumps(outcome, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def worker_main() -> None:
    """Answer each line of the standard input, a function and its arguments, with a line of JSON."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    devnull = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # a function that reads or prints must not disturb the pipes
        os.dup2(devnull, descriptor)
    for line in requests:
        replies.write(call_to_json(**json.loads(line)))
