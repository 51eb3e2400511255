"""The log: a line of JSON for each event, or of text where a person is looking."""

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import TextIO

import structlog
from structlog.typing import ExcInfo

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str, stream: TextIO = sys.stderr) -> None:
    """Log to a stream, with the request id of whoever is being served."""
    person = stream.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.ExceptionRenderer(_where),
            structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    # Addresses of upstreams may hold secrets, and httpx2 logs each of them.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    # It would log once more, text and all, what the door has logged.
    logging.getLogger("uvicorn.error").addFilter(_has_no_exception)


def _has_no_exception(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _where(exc_info: ExcInfo) -> str:
    """Return what failed and where, without its text: that may quote a request, or a key."""
    return "\n".join(_lines(exc_info[1]))


def _lines(fault: BaseException) -> Iterator[str]:
    before = fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__)
    if before:
        yield from _lines(before)
    for place in traceback.extract_tb(fault.__traceback__):
        yield f"{place.filename}:{place.lineno} {place.name}"
    yield type(fault).__name__
    for each in fault.exceptions if isinstance(fault, BaseExceptionGroup) else ():
        yield from _lines(each)
