"""The output items that the model writes: messages, reasoning, calls of the client's tools."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from falsework.grammars.events import Arguments, CallBegins, CallEnds, Event, Reasoning, Text
from falsework.server.api.logprobs import logprob_object
from falsework.server.api.responses.call_items import CALL_ITEMS
from falsework.server.api.responses.client_tools import CallKind, CallName
from falsework.server.api.responses.event_log import EventLog
from falsework.server.api.responses.schema import INCLUDE_REASONING
from falsework.server.api.sealed import REASONING, sealed
from falsework.server.engines import TokenLogprob
from falsework.server.ids import new_id
from falsework.server.types import Json

Phase = Literal["commentary", "final_answer"]
"""What a message is: said before a call, or the answer."""


class ModelItems:
    """Turns the events of a turn into items; at most one of them is open at a time."""

    def __init__(self, log: EventLog, calls: Mapping[str, CallName], *, logprobs: bool) -> None:
        """`calls` tells how calls are shown, by the names that the model knows."""
        self._seal_reasoning = INCLUDE_REASONING in (log.response.request.include or ())
        self._log = log
        self._next_id = log.response.next_item_id
        self._calls = calls
        self._wants_logprobs = logprobs
        self._open: Json | None = None
        self._index = 0
        self._kind: CallKind = "function"
        self._arguments = ""
        self._logprobs: list[Json] = []

    def feed(self, events: Sequence[Event], logprobs: Sequence[TokenLogprob]) -> list[Json]:
        """Return the response events of what one piece of output adds."""
        if self._wants_logprobs:
            self._logprobs += [logprob_object(token) for token in logprobs]
        return [one for event in events for one in EVENT_HANDLERS[type(event)](self, event)]

    def close(self, status: str = "completed", phase: Phase = "commentary") -> list[Json]:
        """Return the last events of the item that is open; `phase` is a message's."""
        item, self._open = self._open, None
        if item is None:
            return []
        item["status"] = status
        if item["type"] == "message":
            item["phase"] = phase
        closer = ITEM_CLOSERS.get(item["type"], ModelItems._close_call)
        return [*closer(self, item), self._log.done(self._index)]

    def _text(self, event: Text) -> list[Json]:
        part: Json = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        opened = self._open_item("message", "msg_", part, role="assistant")
        logprobs, self._logprobs = self._logprobs, []
        self._part["text"] += event.text
        self._part["logprobs"] += logprobs
        fields = {"content_index": 0, "delta": event.text, "logprobs": logprobs}
        return [*opened, self._log.item_event("output_text.delta", self._index, **fields)]

    def _reasoning(self, event: Reasoning) -> list[Json]:
        part = {"type": "reasoning_text", "text": ""}
        sealing = {"encrypted_content": None} if self._seal_reasoning else {}
        opened = self._open_item("reasoning", "rs_", part, summary=[], **sealing)
        self._part["text"] += event.text
        fields = {"content_index": 0, "delta": event.text}
        return [*opened, self._log.item_event("reasoning_text.delta", self._index, **fields)]

    def _open_item(self, kind: str, prefix: str, part: Json, **fields: Any) -> list[Json]:
        """Return the first events of an item with one part, unless it is open."""
        if self._open and self._open["type"] == kind:
            return []
        closed = self.close()
        item: Json = {
            "id": self._next_id(prefix),
            "type": kind,
            **fields,
            "status": "in_progress",
            "content": [],
        }
        self._open, self._index = item, self._log.add_item(item)
        added = self._log.added(self._index, {**item, "content": []})
        item["content"].append(part)
        fields = {"content_index": 0, "part": dict(part)}
        part_added = self._log.item_event("content_part.added", self._index, **fields)
        return [*closed, added, part_added]

    @property
    def _part(self) -> Json:
        assert self._open is not None, "a part is of an open item"
        part: Json = self._open["content"][0]
        return part

    def _call_begins(self, event: CallBegins) -> list[Json]:
        closed = self.close()
        call = self._calls.get(event.name, CallName("function", event.name))
        self._kind, self._arguments = call.kind, ""
        shown = CALL_ITEMS[call.kind]
        self._open = {
            "id": self._next_id(shown.prefix),
            "type": shown.type,
            "call_id": new_id("call_"),
            "status": "in_progress",
            **shown.open(call),
        }
        self._index = self._log.add_item(self._open)
        return [*closed, self._log.added(self._index, self._open)]

    def _call_arguments(self, event: Arguments) -> list[Json]:
        assert self._open is not None, "arguments follow the beginning of their call"
        self._arguments += event.text
        if self._kind != "function":
            return []
        self._open["arguments"] = self._arguments
        kind = "function_call_arguments.delta"
        return [self._log.item_event(kind, self._index, delta=event.text)]

    def _call_ends(self, _: CallEnds) -> list[Json]:
        return self.close()

    def _close_call(self, item: Json) -> list[Json]:
        if self._kind != "function" and self._arguments:
            item |= CALL_ITEMS[self._kind].finish(json.loads(self._arguments))
        match self._kind:
            case "function":
                fields = {"arguments": item["arguments"], "name": item["name"]}
                kind = "function_call_arguments.done"
                return [self._log.item_event(kind, self._index, **fields)]
            case "custom":
                text = item["input"]
                return [
                    self._log.item_event("custom_tool_call_input.delta", self._index, delta=text),
                    self._log.item_event("custom_tool_call_input.done", self._index, input=text),
                ]
        return []

    def _close_part(self, item: Json) -> list[Json]:
        part = item["content"][0]
        if "encrypted_content" in item:
            item["encrypted_content"] = sealed(part["text"], REASONING)
        fields = {key: part[key] for key in ("text", "logprobs") if key in part}
        index = self._index
        return [
            self._log.item_event(f"{part['type']}.done", index, content_index=0, **fields),
            self._log.item_event("content_part.done", index, content_index=0, part=dict(part)),
        ]


EventHandler = Callable[[ModelItems, Any], list[Json]]

EVENT_HANDLERS: Mapping[type[Event], EventHandler] = {
    Arguments: ModelItems._call_arguments,  # noqa: SLF001 - the table of this class's own methods
    CallBegins: ModelItems._call_begins,  # noqa: SLF001
    CallEnds: ModelItems._call_ends,  # noqa: SLF001
    Reasoning: ModelItems._reasoning,  # noqa: SLF001
    Text: ModelItems._text,  # noqa: SLF001
}

ITEM_CLOSERS: Mapping[str, EventHandler] = {
    "message": ModelItems._close_part,  # noqa: SLF001
    "reasoning": ModelItems._close_part,  # noqa: SLF001
}
