"""A response while it is made, and its items as they are shown."""

from dataclasses import dataclass, field
from typing import Any

import anyio

from falsework.runtime.runs import Run
from falsework.server.replies import Json, new_id
from falsework.server.responses.items import Approval
from falsework.server.responses.objects import ResponseObject
from falsework.server.responses.questions import Wanted
from falsework.server.responses.speech import Speech
from falsework.server.watching.watches import Watch


@dataclass
class Live:
    """A response that is being made: who asked, what it says so far, and how to stop it."""

    owner: str
    response: ResponseObject
    items: list[Json]
    history: list[Json]
    speech: Speech
    run: Run
    watch: Watch
    want: Wanted
    approvals: list[Approval]
    events: list[Json] = field(default_factory=list)
    grown: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: bool = False
    deleted: bool = False

    def give_up(self) -> None:
        """Say why it isn't made any further: it was cancelled, its client left, or the server."""
        response = self.response
        leaving = bool(response.request.background) and not self.scope.cancel_called
        response.status = "failed" if leaving else "cancelled"
        if leaving:
            message = "The server ended before the response did."
            response.error = {"code": "server_error", "message": message}

    def add(self, event: Json) -> Json:
        """Keep an event for those who come later."""
        self.events.append(event)
        self.grown.set()
        self.grown = anyio.Event()
        return event


def with_id(item: Json) -> Json:
    """Return an item with an id, its own or a new one."""
    return item if item.get("id") else {**item, "id": new_id("item_")}


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
    limit = min(max(int(query["limit"]), 1), 100) if query.get("limit", "").isdigit() else 20
    shown = ordered[begin : begin + limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": begin + limit < len(ordered),
    }
