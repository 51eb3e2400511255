"""A tool call: the model's text, its arguments parsed once, and what it may use."""

from dataclasses import dataclass, field
from typing import Any

from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult
from falsework.server.types import Json


@dataclass(frozen=True)
class ParsedArguments:
    """The arguments of a call, parsed and checked against the tool's schema.

    `canonical` is the JSON text that equal calls share. Where the arguments are wrong, `error` says
    why, and `canonical` is the model's own text.
    """

    value: Json
    canonical: str
    error: ToolCallError | None = None


@dataclass(frozen=True)
class ToolCall:
    """A call that the model made; `arguments` is its JSON text.

    `parsed` is set by `ToolRun.parse`, once, and travels with the call.
    """

    id: str
    name: str
    arguments: str
    parsed: ParsedArguments | None = field(default=None, compare=False)

    @property
    def dedup_key(self) -> tuple[str, str]:
        """The tool and the canonical arguments, which equal calls share."""
        return (self.name, self.parsed.canonical if self.parsed else self.arguments)

    def result(self, **fields: Any) -> ToolResult:
        """Return the result of this call, with these fields of a ToolResult."""
        name, canonical = self.dedup_key
        return ToolResult(self.id, name, self.arguments, canonical, **fields)


@dataclass(frozen=True)
class CallContext:
    """The limits and the identity of a call: its deadline, principal and idempotency key."""

    deadline: Deadline
    principal: str = ""
    key: str | None = None
    approved: bool = False
    verifying: bool = False
    """True for a verification read: bypass the cache, use no fallback, do not truncate."""
    repairs: bool = False
    """Whether the arguments of this tool's last call were invalid."""
