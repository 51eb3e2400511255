"""HTTP error statuses as ToolCallErrors."""

import email.utils
import math
import time
from collections.abc import Mapping

import httpx2

from falsework.server.tools.errors import ErrorType, ToolCallError

STATUS_ERRORS: Mapping[int, tuple[ErrorType, str]] = {
    429: ("rate_limited", "The upstream is asked too often."),
    502: ("unavailable", "The upstream isn't available."),
    503: ("unavailable", "The upstream isn't available."),
    504: ("unavailable", "The upstream isn't available."),
}


def status_error(status: int, headers: Mapping[str, str], excerpt: str = "") -> ToolCallError:
    """Return the ToolCallError for an HTTP status that is a redirect or an error."""
    seconds = None
    if status in STATUS_ERRORS:
        kind, message = STATUS_ERRORS[status]
        seconds, excerpt = retry_after(headers), ""
    elif status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        kind, message, excerpt = "upstream_error", f"The upstream failed with status {status}.", ""
    elif status >= httpx2.codes.BAD_REQUEST:
        kind = "upstream_rejected"
        message = f"The upstream refused with status {status}" + (": " if excerpt else ".")
    else:
        kind, message = "blocked_egress", "The upstream redirects, which isn't followed."
        excerpt = ""
    return ToolCallError(
        kind, message, str(status), sent=True, retry_after=seconds, code=status, excerpt=excerpt
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header; None where it is missing or malformed."""
    try:
        seconds = _parse_retry_after(headers)
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _parse_retry_after(headers: Mapping[str, str]) -> float:
    if "retry-after-ms" in headers:
        return float(headers["retry-after-ms"]) / 1000
    text = headers.get("retry-after", "")
    if text.isascii() and text.strip().isdigit():
        return float(text)
    return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
