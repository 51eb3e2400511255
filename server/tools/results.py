"""The result of a tool call: a value or an error, as the model and the client read it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falsework.server.tools.errors import RETRYABLE, ToolCallError, WriteEffect
from falsework.server.types import Json


@dataclass(frozen=True)
class ToolResult:
    """The result of one call: a value, or an error.

    `arguments` is the model's text, `canonical` the JSON that equal calls share.
    `degraded`: a fallback answered, named by `fallback`; `partial`: its value is incomplete.
    `note` is a remark for the model beside the value. `seconds` is the duration of the call; of it
    `backoff` passed between attempts, and `queued` before the first one.
    """

    call_id: str
    tool: str
    arguments: str
    canonical: str = ""
    value: Any = None
    error: ToolCallError | None = None
    effect: WriteEffect = "none"
    attempts: int = 0
    fallback: str = "none"
    degraded: bool = False
    partial: bool = False
    truncated: bool = False
    note: str = ""
    seconds: float = 0.0
    backoff: float = 0.0
    queued: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.error is None

    @property
    def dedup_key(self) -> tuple[str, str]:
        """What equal calls have in common: the tool and the canonical arguments."""
        return (self.tool, self.canonical)

    def envelope(self) -> Json:
        """Return the JSON object of an error, or of a value with a note or from a fallback."""
        if self.error is None:
            value: Json = {"ok": True, "result": self.value, "degraded": self.degraded}
            return {**value, "note": self.note} if self.note else value
        return {"ok": False, "error": self._error_object(self.error), "degraded": self.degraded}

    def for_model(self) -> str:
        """Return the text that the model reads: the plain value, or the envelope as JSON."""
        plain = self.ok and not (self.degraded or self.note)
        if plain and isinstance(self.value, str):
            return self.value
        return _json(self.value if plain else self.envelope())

    def to_openai(self) -> Json:
        """Return the entry of `executed_tools` in a chat completion."""
        return {
            "id": self.call_id,
            "type": "function",
            "name": self.tool,
            "arguments": self.arguments,
            "output": self.for_model() if self.ok else None,
            "error": self._error_object(self.error) if self.error else None,
            "degraded": self.degraded,
            "effect": self.effect,
            "attempts": self.attempts,
            "duration_ms": round(self.seconds * 1000),
        }

    def _error_object(self, error: ToolCallError) -> Json:
        seconds = error.retry_after
        fields: Json = {
            "type": error.kind,
            "message": error.message,
            "retryable": error.kind in RETRYABLE and self.effect != "unknown",
            "retry_after_ms": None if seconds is None else int(seconds * 1000),
            "effect": self.effect,
            "attempts": self.attempts,
            "fallback": self.fallback,
            "hint": error.hint,
        }
        return {**fields, "details": [*error.details]} if error.details else fields


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def canonical_json(arguments: Mapping[str, Any]) -> str:
    """Return arguments as JSON with sorted keys: equal arguments have equal text."""
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def truncate(value: Any, max_chars: int) -> tuple[Any, bool]:
    """Return a value whose text has at most so many characters, and whether it was longer."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= max_chars:
        return value, False
    return f"{text[:max_chars]}… [{len(text) - max_chars} more characters were left out]", True
