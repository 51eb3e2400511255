"""A message in Anthropic's form: its events in their order, and the whole that they add up to."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from falsework.grammars.events import Arguments, CallBegins, CallEnds, Event, Reasoning, Text
from falsework.server.api.sealed import REASONING, sealed
from falsework.server.generation import NO_USAGE, ChoiceDelta, FinishReason, Usage
from falsework.server.ids import new_id
from falsework.server.observability import RequestMetrics, record_outcome, warning_objects
from falsework.server.types import Json

STOP_REASONS: dict[FinishReason, str] = {
    "length": "max_tokens",
    "stop": "end_turn",
    "tool_calls": "tool_use",
}


@dataclass
class MessageBuilder:
    """Builds one message; each method returns the events of what happened.

    `prompt` is the prompt's length in tokens; `show_thinking` False gives thoughts without text.
    """

    model: str
    prompt: int
    show_thinking: bool = True
    id: str = field(default_factory=lambda: new_id("msg_"))
    content: list[Json] = field(default_factory=list)
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage = NO_USAGE
    _open: Json | None = None
    _text: str = ""
    """What the open block holds so far: text, a thought, or the JSON of an input."""

    def start(self) -> list[Json]:
        """Begin."""
        self.usage = Usage(self.prompt, 0)
        return [{"type": "message_start", "message": self.body()}, {"type": "ping"}]

    def feed(self, delta: ChoiceDelta) -> list[Json]:
        """Return the events of what a piece of output adds."""
        events = [one for event in delta.events for one in self._event(event)]
        if delta.finish:
            events += self._close()
            called = any(block["type"] == "tool_use" for block in self.content)
            stopped = delta.finish == "stop" and bool(delta.stopped_by)
            self.stop_sequence = delta.stopped_by if stopped else None
            self.stop_reason = "stop_sequence" if stopped else STOP_REASONS[delta.finish]
            if called and delta.finish == "stop":
                self.stop_reason, self.stop_sequence = "tool_use", None
        return events

    def finish(self) -> list[Json]:
        """End."""
        ending = {"stop_reason": self.stop_reason, "stop_sequence": self.stop_sequence}
        last: Json = {"type": "message_delta", "delta": ending, "usage": self._usage()}
        if warnings := warning_objects():
            last["warnings"] = warnings
        return [last, {"type": "message_stop"}]

    def body(self) -> Json:
        """Return the message so far."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": list(self.content),
            "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence,
            "usage": self._usage(),
        }

    def _usage(self) -> Json:
        return {
            "input_tokens": self.usage.prompt - self.usage.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self.usage.cached,
            "output_tokens": self.usage.completion,
            "service_tier": "standard",
        }

    def _event(self, event: Event) -> list[Json]:
        match event:
            case Text(text):
                opened = self._begin("text", {"type": "text", "text": ""})
                return [*opened, *self._delta("text_delta", "text", text)]
            case Reasoning(text):
                block: Json = {"type": "thinking", "thinking": "", "signature": ""}
                opened = self._begin("thinking", block)
                if self.show_thinking:
                    return [*opened, *self._delta("thinking_delta", "thinking", text)]
                self._text += text
                return opened
            case CallBegins(_, name):
                call: Json = {"type": "tool_use", "id": new_id("toolu_"), "name": name, "input": {}}
                return self._begin("", call)
            case Arguments(_, text):
                return self._delta("input_json_delta", "partial_json", text)
            case CallEnds():
                assert self._open is not None, "a call that ends has begun"
                self._open["input"] = json.loads(self._text)
                return self._close()
        raise AssertionError("every kind of event has its case")

    def _begin(self, kind: str, block: Json) -> list[Json]:
        """Return the first event of a block, unless one of that kind is open."""
        if self._open is not None and self._open["type"] == kind:
            return []
        closed = self._close()
        self._open = dict(block)
        self.content.append(self._open)
        return [*closed, self._indexed("content_block_start", content_block=block)]

    def _delta(self, kind: str, name: str, text: str) -> list[Json]:
        self._text += text
        return [self._indexed("content_block_delta", delta={"type": kind, name: text})]

    def _close(self) -> list[Json]:
        """Return the last events of the block that is open."""
        block, text = self._open, self._text
        self._open, self._text = None, ""
        if block is None:
            return []
        events: list[Json] = []
        match block["type"]:
            case "text":
                block["text"] = text
            case "thinking":
                block["thinking"] = text if self.show_thinking else ""
                block["signature"] = sealed(text, REASONING)
                delta = {"type": "signature_delta", "signature": block["signature"]}
                events.append(self._indexed("content_block_delta", delta=delta))
        return [*events, self._indexed("content_block_stop")]

    def _indexed(self, kind: str, **fields: Json) -> Json:
        return {"type": kind, "index": len(self.content) - 1, **fields}


async def stream_message(
    deltas: AsyncGenerator[ChoiceDelta | Usage], builder: MessageBuilder, metrics: RequestMetrics
) -> AsyncGenerator[Json]:
    """Yield the events of a message; closing it frees the engine."""
    with record_outcome(metrics):
        for event in builder.start():
            yield event
        async with aclosing(deltas):
            async for delta in deltas:
                for event in _events(delta, builder):
                    yield event
        for event in builder.finish():
            yield event


async def collect_message(
    deltas: AsyncGenerator[ChoiceDelta | Usage], builder: MessageBuilder, metrics: RequestMetrics
) -> Json:
    """Return the whole message: the fold of what a stream would send."""
    async with aclosing(stream_message(deltas, builder, metrics)) as events:
        async for _ in events:
            pass
    warnings = warning_objects()
    return {**builder.body(), **({"warnings": warnings} if warnings else {})}


def _events(delta: ChoiceDelta | Usage, builder: MessageBuilder) -> Sequence[Json]:
    if isinstance(delta, Usage):
        builder.usage = delta
        return []
    return builder.feed(delta)
