"""What nobody foresaw, logged where it ends: its place, not its text, which may hold arguments."""

import traceback

import structlog

MAX_FRAMES = 6

_log = structlog.get_logger("falsework.tools")


def log_unexpected_error(event: str, fault: BaseException, **more: str) -> None:
    """Log an exception that ends at a boundary between calls."""
    where = [f"{frame.filename}:{frame.lineno} {frame.name}"
             for frame in traceback.extract_tb(fault.__traceback__)[-MAX_FRAMES:]]  # fmt: skip
    _log.error(event, error=type(fault).__name__, where=where, **more)
