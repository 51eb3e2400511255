"""What goes wrong with the database, as one typed error that says what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from falsework.server.errors import APIError
from falsework.server.observability import telemetry

REASONS: Mapping[str, tuple[str, str]] = {
    "SQLITE_BUSY": ("locked", "another process holds its lock"),
    "SQLITE_CANTOPEN": ("unreachable", "its file can't be opened: check the path and its rights"),
    "SQLITE_CORRUPT": ("damaged", "its file is damaged: restore a copy, or move it away"),
    "SQLITE_FULL": ("full", "its disk is full: make room"),
    "SQLITE_IOERR": ("unreachable", "reading or writing its file fails: check the disk"),
    "SQLITE_LOCKED": ("locked", "another connection holds its lock"),
    "SQLITE_NOTADB": ("damaged", "its file is no database: restore a copy, or move it away"),
    "SQLITE_READONLY": ("readonly", "its file is read-only: check its rights"),
}
"""Kind and sentence by the beginning of SQLite's name of an error."""


NOT_STORED = "The database couldn't be written: what was done is told here, and may not be stored."


class StorageUnavailable(APIError):
    """The database can't be used right now; what needs it wasn't begun."""

    status = 503
    code = "storage_unavailable"
    headers = {"retry-after": "1"}


def reason_of(error: BaseException) -> tuple[str, str]:
    """Return the kind of a database error, and the sentence that says what to do."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(cause, "sqlite_errorname", "")
    for prefix, reason in REASONS.items():
        if name.startswith(prefix):
            return reason
    if isinstance(cause, OSError):
        return "unreachable", "it can't be reached: check its address and that it runs"
    return "failed", f"it failed ({type(cause).__name__})"


@contextmanager
def typed_errors(operation: str) -> Iterator[None]:
    """Raise what the database raises as StorageUnavailable, and count it."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        kind, sentence = reason_of(error)
        telemetry.STORAGE_ERRORS.labels(operation, kind).inc()
        message = f"The server's database can't be used: {sentence}. Try again later."
        raise StorageUnavailable(message) from error
