"""The contract of what runs a tool: arguments in, a result out, once."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from falsework.server.tools.deadline import Deadline

Json = dict[str, Any]


@dataclass
class AttemptContext:
    """One attempt: how long it may take, and what makes it the same call again.

    The executor sets `sent` as soon as the upstream may have received something.
    """

    deadline: Deadline
    call_id: str
    key: str | None = None
    sent: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolDescription:
    """What an executor knows of its tool without the tools file: an operation, an MCP tool."""

    description: str = ""
    parameters: Json | None = None
    result_schema: Json | None = None


class Executor(Protocol):
    """Runs one tool."""

    upstream: str
    """What fails together: the origin of a URL, an MCP server, a callable."""

    async def execute(self, arguments: Json, ticket: AttemptContext) -> Any:
        """Return the result, any JSON value; raise a Fault. Cancelled, it leaves nothing behind."""
        ...

    async def describe(self) -> ToolDescription:
        """Return what the upstream says of the tool; raise a Fault where it has to be asked."""
        ...
