"""The events of a response so far, numbered, and the output items that they build up."""

from typing import Any

from falsework.server.api.responses.object import ResponseObject
from falsework.server.types import Json

TERMINAL_EVENTS = {"cancelled": "incomplete", "completed": "completed", "incomplete": "incomplete"}
"""The last event by the status; of all others it is `failed`."""


class EventLog:
    """Appends events; each stands at the index that is its sequence number."""

    def __init__(self, response: ResponseObject) -> None:
        self.response = response
        self.events: list[Json] = []

    def add_item(self, item: Json) -> int:
        """Add an output item; return its index."""
        self.response.output.append(item)
        return len(self.response.output) - 1

    def item_event(self, kind: str, index: int, **fields: Any) -> Json:
        """Return another event of an item."""
        item_id = self.response.output[index]["id"]
        return self.event(f"response.{kind}", item_id=item_id, output_index=index, **fields)

    def added(self, index: int, item: Json) -> Json:
        """Return the first event of an item."""
        return self.event("response.output_item.added", output_index=index, item=dict(item))

    def done(self, index: int) -> Json:
        """Return the last event of an item."""
        item = dict(self.response.output[index])
        return self.event("response.output_item.done", output_index=index, item=item)

    def event(self, kind: str, **fields: Any) -> Json:
        """Return another event."""
        event = {"type": kind, "sequence_number": len(self.events), **fields}
        self.events.append(event)
        return event

    def terminal(self) -> Json:
        """Return the last event, which carries the whole response."""
        event = terminal_event(self.response.to_openai(), len(self.events))
        self.events.append(event)
        return event


def terminal_event(body: Json, number: int) -> Json:
    """Return the last event of a response, by its status."""
    kind = TERMINAL_EVENTS.get(body["status"], "failed")
    return {"type": f"response.{kind}", "sequence_number": number, "response": body}
