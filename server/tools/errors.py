"""Errors of tool calls: the closed list of types, and which of them may be retried.

Rule: an exception's text never leaves the server. Code that catches a library's exception raises a
ToolCallError with a sentence of our own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from falsework.server.python_worker import UNHANDLED_EXCEPTION

ErrorType = Literal[
    "invalid_arguments",
    "unknown_tool",
    "not_allowed",
    "approval_required",
    "precondition_failed",
    "rate_limited",
    "overloaded",
    "circuit_open",
    "timeout",
    "deadline_exhausted",
    "unavailable",
    "upstream_error",
    "upstream_rejected",
    "bad_response",
    "too_large",
    "blocked_egress",
    "cancelled",
    "tool_error",
    "internal",
]
"""The value of `error.type` in an envelope, and of the metrics' label `error_type`."""

ERROR_TYPES: tuple[ErrorType, ...] = get_args(ErrorType)

WriteEffect = Literal["none", "applied", "not_applied", "unknown"]
"""Whether a write was applied: `unknown` where an attempt was sent and its answer never came."""

TRIPS_BREAKER: frozenset[ErrorType] = frozenset({"timeout", "unavailable", "upstream_error"})
"""Errors that count against an upstream's health; the others say nothing about it."""

RETRYABLE: frozenset[ErrorType] = frozenset(
    {"rate_limited", "overloaded", "circuit_open", "timeout", "unavailable"}
)
"""Errors that a later call may not meet again."""

PAUSE_REASONS = frozenset({"429", "503"})
"""HTTP statuses whose Retry-After asks for a pause."""

CHECK_HINT = "Check what became of it before doing it again."
"""The hint of an error whose write may have been applied."""


JSON_RPC_INTERNAL_ERROR = -32603

AMBIGUOUS: frozenset[ErrorType] = TRIPS_BREAKER | {
    "bad_response",
    "too_large",
    "blocked_egress",
    "internal",
}
"""Errors after which a sent write may or may not have been applied; redirects are among them."""


@dataclass
class ToolCallError(Exception):
    """The failure of a call, or of one attempt.

    `reason` is a value of `retry_on`: connect, timeout, reset, crash, or an HTTP status.
    `sent`: the upstream may have received the attempt, and didn't say that it did nothing.
    `retry_after` is in seconds.
    `code` is an HTTP status or a JSON-RPC error code. `excerpt` is the upstream's own text, which
    `Redactor.redact_error` appends to the message.
    """

    kind: ErrorType
    message: str
    reason: str = ""
    sent: bool = False
    retry_after: float | None = None
    code: int | None = None
    details: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    hint: str = ""
    excerpt: str = ""

    def __hash__(self) -> int:
        """Hash by value: contextlib and logging put exceptions in sets."""
        return hash((self.kind, self.message))

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def is_ambiguous(error: BaseException) -> bool:
    """Tell whether a write that was sent and failed so may have been applied all the same."""
    if not isinstance(error, ToolCallError):
        return True
    internal = error.reason == UNHANDLED_EXCEPTION or error.code == JSON_RPC_INTERNAL_ERROR
    return internal or error.kind in AMBIGUOUS
