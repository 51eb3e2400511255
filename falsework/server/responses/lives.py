"""A response while it is made, and its items as they are shown."""

from dataclasses import dataclass, field
from typing import Any

import anyio

from falsework.runtime.runs import Run
from falsework.server.refusals import Refusal
from falsework.server.replies import Json
from falsework.server.responses.approvals import Approval
from falsework.server.responses.items import OURS
from falsework.server.responses.objects import ResponseObject
from falsework.server.responses.questions import Wanted
from falsework.server.responses.speech import Speech
from falsework.server.streams import error_body
from falsework.server.watching.watches import Watch


@dataclass
class Live:
    """A response that is being made: who asked, what it says so far, and how to stop it.

    `history` are the items of the conversation, those of the input included.
    """

    owner: str
    response: ResponseObject
    history: list[Json]
    speech: Speech
    run: Run
    watch: Watch
    want: Wanted
    approvals: list[Approval] = field(default_factory=list)
    grown: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    keeping: anyio.Lock = field(default_factory=anyio.Lock)
    over: bool = False

    @property
    def events(self) -> list[Json]:
        """All that it has said."""
        return self.speech.events

    def grow(self) -> None:
        """Wake those who wait for more events."""
        self.grown.set()
        self.grown = anyio.Event()

    async def ends(self) -> None:
        """Wait until it is over, and kept."""
        while not self.over:
            await self.grown.wait()

    def fail(self, refusal: Refusal) -> Json:
        """End it as failed; return the event that says so."""
        if not self.events or self.events[-1]["type"] != "error":
            error = error_body(refusal)["error"]
            told = {"code": error["code"] or "server_error", "message": error["message"]}
            self.response.status, self.response.error = "failed", told
            self.response.completed_at = None
            list(self.speech.fail({**error, **told}))
            self.grow()
        return self.events[-1]

    def give_up(self) -> None:
        """End it as it stands: it was cancelled, its client left, or the server."""
        if self.speech.ended:
            return
        response = self.response
        if response.status == "in_progress":
            leaving = bool(response.request.background) and not self.scope.cancel_called
            response.status = "failed" if leaving else "cancelled"
            message = "The server ended before the response did."
            response.error = {"code": "server_error", "message": message} if leaving else None
        list(self.speech.end())
        self.grow()


def kept(item: Json, response: ResponseObject) -> Json:
    """Return an item of the input as it is kept: with an id, its text in parts, never ours."""
    item = {key: value for key, value in item.items() if key != OURS}
    item["id"] = item.get("id") or response.item_id("item_")
    if "role" in item and isinstance(item.get("content"), str):
        kind = "output_text" if item["role"] == "assistant" else "input_text"
        item |= {"type": "message", "content": [{"type": kind, "text": item["content"]}]}
    return item


def listing(label: str, want: Wanted) -> list[Json]:
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


def page(items: list[Json], query: Any) -> Json:
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
