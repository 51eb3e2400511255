"""A response while it is made, and its items as they are shown."""

from dataclasses import dataclass, field

import anyio

from falsework.server.api.responses.approvals import ApprovalAnswer
from falsework.server.api.responses.events import ResponseEventBuilder
from falsework.server.api.responses.messages import SERVER_MADE
from falsework.server.api.responses.object import ResponseObject
from falsework.server.api.responses.request import PreparedRequest
from falsework.server.api.responses.schema import CreateResponseRequest
from falsework.server.generation import PreparedTurn
from falsework.server.observability import RequestMetrics
from falsework.server.tools import ToolRun
from falsework.server.types import Json


@dataclass(frozen=True)
class ResponseParts:
    """What a response is made from; `history` are the conversation's items, the input's included.

    `first_turn` is built already; the approved calls run before it, and change its prompt.
    """

    owner: str
    request: CreateResponseRequest
    history: list[Json]
    prepared: PreparedRequest
    first_turn: PreparedTurn
    run: ToolRun
    metrics: RequestMetrics
    approvals: list[ApprovalAnswer]
    deadline: float
    """The client's, by the event loop's clock."""


@dataclass
class InProgressResponse:
    """A response that is being made: its parts, its events so far, and how to stop it."""

    id: str
    parts: ResponseParts
    builder: ResponseEventBuilder
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    saving: anyio.Lock = field(default_factory=anyio.Lock)
    over: bool = False
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def events(self) -> list[Json]:
        """All its events so far."""
        return self.builder.events

    def conversation(self) -> list[Json]:
        """Return the items of the conversation, those that were made here marked as such."""
        made = ({**item, SERVER_MADE: True} for item in self.builder.body["output"])
        return [*self.parts.history, *made]

    def notify(self) -> None:
        """Wake those who wait for more events."""
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_change(self) -> None:
        """Wait for more events, or the end."""
        await self._changed.wait()

    async def wait_over(self) -> None:
        """Wait until it is over, and stored."""
        while not self.over:
            await self._changed.wait()

    def cut_off(self) -> list[Json]:
        """Return the last events of a response whose client, or server, went away."""
        background = bool(self.parts.request.background)
        return self.builder.interrupt(server_ended=background and not self.scope.cancel_called)


def normalize_input_item(item: Json, response: ResponseObject) -> Json:
    """Return an item of the input as it is stored: with an id, its text in parts, never ours."""
    item = {key: value for key, value in item.items() if key != SERVER_MADE}
    item["id"] = item.get("id") or response.next_item_id("item_")
    if "role" in item and isinstance(item.get("content"), str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        item |= {"type": "message", "content": [{"type": kind, "text": item["content"]}]}
    return item


def tool_listing(label: str, prepared: PreparedRequest) -> list[Json]:
    """Return an MCP server's tools as its listing has them."""
    return [
        {
            "name": tool.name.removeprefix(f"{label}__"),
            "description": tool.description,
            "input_schema": dict(tool.parameters),
            "annotations": None,
        }
        for tool in prepared.generation.tools
        if prepared.server_tools.labels.get(tool.name) == label
    ]
