"""How a call ended, as the model is told it and as the client is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falsework.server.tools.errors import RETRYABLE, ToolCallError, WriteEffect

Json = dict[str, Any]


@dataclass(frozen=True)
class ToolResult:
    """One call, ended: with a value, or with a fault.

    `arguments` is the model's text, `canonical` the JSON that equal calls share.

    `degraded`: a fallback answered, named by `fallback`; `partial`: it says that something is
    missing. `effect` says what became of a write.
    `note` is told to the model beside the result. `seconds` is how long it took, `backoff` and
    `queued` of them between attempts and before the first.
    """

    call_id: str
    tool: str
    arguments: str
    canonical: str = ""
    value: Any = None
    fault: ToolCallError | None = None
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
        """Whether there is a result."""
        return self.fault is None

    @property
    def dedup_key(self) -> tuple[str, str]:
        """What equal calls have in common: the tool and the canonical arguments."""
        return (self.tool, self.canonical)

    def envelope(self) -> Json:
        """Return what an error, or a result with something to say beside it, looks like."""
        if self.fault is None:
            said: Json = {"ok": True, "result": self.value, "degraded": self.degraded}
            return {**said, "note": self.note} if self.note else said
        return {"ok": False, "error": self._error(self.fault), "degraded": self.degraded}

    def for_model(self) -> str:
        """Return what the model reads: the plain result, or the envelope."""
        plain = self.ok and not (self.degraded or self.note)
        if plain and isinstance(self.value, str):
            return self.value
        return _json(self.value if plain else self.envelope())

    def to_openai(self) -> Json:
        """Return the call as clients read it in `executed_tools`."""
        return {
            "id": self.call_id,
            "type": "function",
            "name": self.tool,
            "arguments": self.arguments,
            "output": self.for_model() if self.ok else None,
            "error": self._error(self.fault) if self.fault else None,
            "degraded": self.degraded,
            "effect": self.effect,
            "attempts": self.attempts,
            "duration_ms": round(self.seconds * 1000),
        }

    def _error(self, fault: ToolCallError) -> Json:
        after = fault.retry_after
        error: Json = {
            "type": fault.kind,
            "message": fault.message,
            "retryable": fault.kind in RETRYABLE and self.effect != "unknown",
            "retry_after_ms": None if after is None else int(after * 1000),
            "effect": self.effect,
            "attempts": self.attempts,
            "fallback": self.fallback,
            "hint": fault.hint,
        }
        return {**error, "details": [*fault.details]} if fault.details else error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def canonical_json(arguments: Mapping[str, Any]) -> str:
    """Return arguments as the text that equal arguments share."""
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
