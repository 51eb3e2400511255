"""The interface of executors, which make one attempt of a call."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from falsework.server.tools.deadline import Deadline
from falsework.server.types import Json


@dataclass
class AttemptContext:
    """One attempt: its deadline, the ids of its call, and trace headers for the upstream.

    `key` is the idempotency key of the call. The executor sets `sent` as soon as the upstream may
    have received something.
    """

    deadline: Deadline
    call_id: str
    key: str | None = None
    sent: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolDescription:
    """Description and schemas of a tool as its upstream gives them."""

    description: str = ""
    parameters: Json | None = None
    result_schema: Json | None = None


class Executor(Protocol):
    """Makes the attempts of one tool."""

    upstream: str
    """The name of the upstream: the origin of a URL, an MCP server, a callable."""

    async def execute(self, arguments: Json, attempt: AttemptContext) -> Any:
        """Return the result, a JSON value; raise a ToolCallError. Can be cancelled."""
        ...

    async def describe(self) -> ToolDescription:
        """Return the upstream's description of the tool; raise a ToolCallError."""
        ...
