"""The log: a line of JSON for each event, or of text where a person is looking."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer

# Values of variables would tell what was asked, and with which key.
_WITHOUT_VALUES = ExceptionDictTransformer(show_locals=False)

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Log to a stream, with the request id of whoever is being served."""
    person = stream.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            _as_it_is if person else structlog.processors.ExceptionRenderer(_WITHOUT_VALUES),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if person
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    # Addresses of upstreams may hold secrets, and httpx2 logs each of them.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def _as_it_is(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event
