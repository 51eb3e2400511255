"""The log: a line of JSON for each event, or of text on a terminal."""

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import TextIO

import structlog
from structlog.typing import ExcInfo

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str, stream: TextIO = sys.stderr) -> None:
    """Log to a stream; every line has the id of the request in whose context it is written."""
    interactive = stream.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.ExceptionRenderer(_traceback_without_text),
            structlog.dev.ConsoleRenderer() if interactive else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    # Addresses of upstreams may hold secrets, and httpx2 logs each of them.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    # It would log once more, with its text, an exception that the middleware has logged.
    logging.getLogger("uvicorn.error").addFilter(_has_no_exception)


def _has_no_exception(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _traceback_without_text(exc_info: ExcInfo) -> str:
    """Return an exception's types and positions, not its text: that may quote a request or key."""
    return "\n".join(_lines(exc_info[1]))


def _lines(error: BaseException) -> Iterator[str]:
    context = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if context:
        yield from _lines(context)
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"{frame.filename}:{frame.lineno} {frame.name}"
    yield type(error).__name__
    for member in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from _lines(member)
