"""A response while it is made, and its items as they are shown."""

from falsework.server.types import Json
from dataclasses import dataclass, field
from typing import Any

import anyio


from falsework.server.api.responses.approvals import ApprovalAnswer
from falsework.server.api.responses.events import ResponseEventBuilder
from falsework.server.api.responses.messages import SERVER_MADE
from falsework.server.api.responses.object import ResponseObject
from falsework.server.api.responses.request import PreparedRequest
from falsework.server.errors import APIError
from falsework.server.http.sse import error_body
from falsework.server.observability.request_metrics import RequestMetrics
from falsework.server.tools.tool_run import ToolRun


@dataclass
class InProgressResponse:
    """A response that is being made: who asked, what it says so far, and how to stop it.

    `history` are the items of the conversation, those of the input included.
    """

    owner: str
    response: ResponseObject
    history: list[Json]
    speech: ResponseEventBuilder
    run: ToolRun
    watch: RequestMetrics
    want: PreparedRequest
    approvals: list[ApprovalAnswer] = field(default_factory=list)
    grown: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    keeping: anyio.Lock = field(default_factory=anyio.Lock)
    over: bool = False

    @property
    def events(self) -> list[Json]:
        """All that it has said."""
        return self.speech.events

    def notify(self) -> None:
        """Wake those who wait for more events."""
        self.grown.set()
        self.grown = anyio.Event()

    async def wait_done(self) -> None:
        """Wait until it is over, and kept."""
        while not self.over:
            await self.grown.wait()

    def fail(self, refusal: APIError) -> Json:
        """End it as failed; return the event that says so."""
        if not self.events or self.events[-1]["type"] != "error":
            error = error_body(refusal)["error"]
            told = {"code": error["code"] or "server_error", "message": error["message"]}
            self.response.status, self.response.error = "failed", told
            self.response.completed_at = None
            list(self.speech.error({**error, **told}))
            self.notify()
        return self.events[-1]

    def abort(self) -> None:
        """End it as it stands: it was cancelled, its client left, or the server."""
        if self.speech.ended:
            return
        response = self.response
        if response.status == "in_progress":
            leaving = bool(response.request.background) and not self.scope.cancel_called
            response.status = "failed" if leaving else "cancelled"
            message = "The server ended before the response did."
            response.error = {"code": "server_error", "message": message} if leaving else None
        list(self.speech.terminal())
        self.notify()


def normalize_input_item(item: Json, response: ResponseObject) -> Json:
    """Return an item of the input as it is kept: with an id, its text in parts, never ours."""
    item = {key: value for key, value in item.items() if key != SERVER_MADE}
    item["id"] = item.get("id") or response.next_item_id("item_")
    if "role" in item and isinstance(item.get("content"), str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        item |= {"type": "message", "content": [{"type": kind, "text": item["content"]}]}
    return item


def tool_listing(label: str, want: PreparedRequest) -> list[Json]:
    """Return an MCP server's tools as its listing has them."""
    return [
        {
            "name": tool.name.removeprefix(f"{label}__"),
            "description": tool.description,
            "input_schema": dict(tool.parameters),
            "annotations": None,
        }
        for tool in want.question.tools
        if want.served.labels.get(tool.name) == label
    ]


def paginate(items: list[Json], query: Any) -> Json:
    """Return a page of items, the newest first unless asked otherwise."""
    ordered = items if query.get("order") == "asc" else items[::-1]
    ids = [item.get("id") for item in ordered]
    begin = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    limit = min(max(int(query["limit"]), 1), 100) if query.get("limit", "").isdecimal() else 20
    shown = ordered[begin : begin + limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": begin + limit < len(ordered),
    }
