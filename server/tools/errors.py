"""What can go wrong with a tool, as the model and the client are told it.

Rule: raw exception text never leaves. Whoever catches a library's exception raises a Fault with a
sentence of our own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

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
"""The closed list of what an error can be; also the label `error_type`."""

ERROR_TYPES: tuple[ErrorType, ...] = get_args(ErrorType)

WriteEffect = Literal["none", "applied", "not_applied", "unknown"]
"""What became of a write: `unknown` where an attempt was sent and its answer never came."""

TRIPS_BREAKER: frozenset[ErrorType] = frozenset({"timeout", "unavailable", "upstream_error"})
"""What speaks against an upstream; everything else says nothing about its health."""

RETRYABLE: frozenset[ErrorType] = frozenset(
    {"rate_limited", "overloaded", "circuit_open", "timeout", "unavailable"}
)
"""What may be gone if the model tries again later."""


REJECTED_STATUSES = frozenset({"429", "503"})
"""Answers by which an upstream says that it did nothing."""

UNHANDLED_EXCEPTION = "exception"
"""The reason of a tool that failed without meaning to."""

JSON_RPC_INTERNAL_ERROR = -32603

AMBIGUOUS: frozenset[ErrorType] = TRIPS_BREAKER | {
    "bad_response",
    "too_large",
    "blocked_egress",
    "internal",
}
"""What leaves open what a write did that was sent: a redirect, too."""


@dataclass
class ToolCallError(Exception):
    """A call that failed, or one attempt of it.

    `reason` is what `retry_on` speaks of: connect, timeout, reset, crash, or an HTTP status.
    `sent` tells whether the upstream may have received the attempt. `retry_after` is in seconds.
    `code` is the upstream's own number: an HTTP status, or JSON-RPC's.
    """

    kind: ErrorType
    message: str
    reason: str = ""
    sent: bool = False
    retry_after: float | None = None
    code: int | None = None
    details: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    hint: str = ""

    def __hash__(self) -> int:
        """Contextlib and logs put exceptions in sets."""
        return hash((self.kind, self.message))

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def is_ambiguous(fault: BaseException) -> bool:
    """Tell whether a write that was sent and ended so may have acted all the same."""
    if not isinstance(fault, ToolCallError):
        return True
    if fault.reason in REJECTED_STATUSES:
        return False
    unmeant = fault.reason == UNHANDLED_EXCEPTION or fault.code == JSON_RPC_INTERNAL_ERROR
    return unmeant or fault.kind in AMBIGUOUS
