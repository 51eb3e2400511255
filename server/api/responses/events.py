"""The events of a response, in OpenAI's order, and the items that they build up."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from falsework.grammars.events import Arguments, CallBegins, CallEnds, Event, Reasoning, Text
from falsework.server.api.chat.objects import new_id
from falsework.server.api.responses.messages import interrupted_result
from falsework.server.api.responses.object import ResponseObject
from falsework.server.api.server_tools import BUILTIN_SERVER_LABEL
from falsework.server.engines.base import TokenLogprob
from falsework.server.tools.errors import ErrorType, ToolCallError
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import ToolCall

Json = dict[str, Any]

TERMINAL_EVENTS = {"cancelled": "incomplete", "completed": "completed", "incomplete": "incomplete"}
"""The last event by the status; of all others it is `failed`."""

HTTP_ERRORS: frozenset[ErrorType] = frozenset(
    {"unavailable", "upstream_error", "upstream_rejected"}
)


class ResponseEventBuilder:
    """Speaks one response; each method yields events and keeps the items up to date.

    `events` are all of them so far, each at the place that is its sequence number.
    """

    def __init__(
        self, response: ResponseObject, labels: Mapping[str, str], *, logprobs: bool
    ) -> None:
        """`labels` are the MCP servers of the tools that come from one."""
        self.response = response
        self._id = response.next_item_id
        self._labels = labels
        tools = response.request.tools or []
        self._custom = {tool.get("name") for tool in tools if tool.get("type") == "custom"}
        self._wants_logprobs = logprobs
        self.events: list[Json] = []
        self.ended = False
        self._said = ""
        self._open: Json | None = None
        self._logprobs: list[Json] = []
        self._calls: dict[str, int] = {}
        """Where the calls stand that the server runs."""

    def created(self) -> Iterator[Json]:
        """Say that it is there."""
        yield self._event("response.created", response=self.response.to_openai())
        yield self._event("response.in_progress", response=self.response.to_openai())

    def terminal(self) -> Iterator[Json]:
        """Say how it ended, and everything once more."""
        yield from self._leave()
        self.ended = True
        if self.response.status == "completed":
            self.response.completed_at = int(time.time())
        body = self.response.to_openai()
        self.events.append(terminal_event(body, len(self.events)))
        yield self.events[-1]

    def error(self, error: Json) -> Iterator[Json]:
        """Say that it failed: in both shapes that clients look for."""
        yield from self._leave()
        self.ended = True
        told = {key: error[key] for key in ("code", "message", "param")}
        yield self._event("error", **told, error=error)

    def mcp_list_tools(self, label: str, tools: Sequence[Json]) -> Iterator[Json]:
        """Say which tools an MCP server has."""
        item: Json = {"id": self._id("mcpl_"), "type": "mcp_list_tools", "server_label": label,
                      "tools": [], "error": None}  # fmt: skip
        at = self._add(item)
        yield self._event("response.output_item.added", output_index=at, item=dict(item))
        yield self._told("mcp_list_tools.in_progress", at)
        item["tools"] = list(tools)
        yield self._told("mcp_list_tools.completed", at)
        yield self._event("response.output_item.done", output_index=at, item=dict(item))

    def model_event(self, event: Event, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[Json]:
        """Say what the model said."""
        self._logprobs += [_logprob(token) for token in logprobs] if self._wants_logprobs else []
        yield from EVENT_HANDLERS[type(event)](self, event)

    def mcp_calls_started(
        self, calls: Sequence[ToolCall], approved_by: Mapping[str, str] = {}
    ) -> Iterator[Json]:
        """Say which calls the server runs."""
        yield from self._close()
        for call in calls:
            item = {
                **self._named(call, self._id("mcp_")), "type": "mcp_call", "arguments": "",
                "output": None, "error": None, "status": "in_progress",
                "approval_request_id": approved_by.get(call.id),
            }  # fmt: skip
            at = self._calls[call.id] = self._add(item)
            yield self._event("response.output_item.added", output_index=at, item=dict(item))
            yield self._told("mcp_call.in_progress", at)
            item["arguments"] = call.arguments
            yield self._told("mcp_call_arguments.delta", at, delta=call.arguments)
            yield self._told("mcp_call_arguments.done", at, arguments=call.arguments)

    def mcp_calls_finished(self, outcomes: Sequence[ToolResult]) -> Iterator[Json]:
        """Say what became of them."""
        for outcome in outcomes:
            at = self.store_result(outcome)
            yield self._told(f"mcp_call.{'failed' if outcome.error else 'completed'}", at)
            item = dict(self.response.output[at])
            yield self._event("response.output_item.done", output_index=at, item=item)

    def store_result(self, outcome: ToolResult) -> int:
        """Put the outcome of a call into its item; return where that is."""
        at = self._calls[outcome.call_id]
        fault = outcome.error
        self.response.output[at] |= {
            "status": "failed" if fault else "completed",
            "output": None if fault else outcome.for_model(),
            "error": _error(fault, outcome) if fault else None,
        }
        return at

    def approval_requested(self, calls: Sequence[ToolCall]) -> Iterator[Json]:
        """Say which calls wait for approval."""
        yield from self._close()
        for call in calls:
            item = {**self._named(call, self._id("mcpr_")), "type": "mcp_approval_request",
                    "arguments": call.arguments}  # fmt: skip
            at = self._add(item)
            yield self._event("response.output_item.added", output_index=at, item=item)
            yield self._event("response.output_item.done", output_index=at, item=item)

    def _named(self, call: ToolCall, item_id: str) -> Json:
        label = self._labels.get(call.name, BUILTIN_SERVER_LABEL)
        return {"id": item_id, "server_label": label, "name": call.name.removeprefix(f"{label}__")}

    def _text(self, event: Text) -> Iterator[Json]:
        if not (self._open and self._open["type"] == "message"):
            yield from self._close()
            part: Json = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield from self._opens(
                {"id": self._id("msg_"), "type": "message", "role": "assistant",
                 "status": "in_progress", "content": []}, part,
            )  # fmt: skip
        at, part = self._part()
        part["text"] += event.text
        logprobs, self._logprobs = self._logprobs, []
        part["logprobs"] += logprobs
        yield self._told(
            "output_text.delta", at, content_index=0, delta=event.text, logprobs=logprobs
        )

    def _reasoning(self, event: Reasoning) -> Iterator[Json]:
        if not (self._open and self._open["type"] == "reasoning"):
            yield from self._close()
            part = {"type": "reasoning_text", "text": ""}
            yield from self._opens(
                {"id": self._id("rs_"), "type": "reasoning", "summary": [], "content": [],
                 "status": "in_progress"}, part,
            )  # fmt: skip
        at, part = self._part()
        part["text"] += event.text
        yield self._told("reasoning_text.delta", at, content_index=0, delta=event.text)

    def _call_begins(self, event: CallBegins) -> Iterator[Json]:
        yield from self._close()
        said = {"call_id": new_id("call_"), "name": event.name, "status": "in_progress"}
        if event.name in self._custom:
            self._open = {"id": self._id("ctc_"), "type": "custom_tool_call", **said, "input": ""}
            self._said = ""
        else:
            self._open = {"id": self._id("fc_"), "type": "function_call", **said, "arguments": ""}
        at = self._add(self._open)
        yield self._event("response.output_item.added", output_index=at, item=dict(self._open))

    def _arguments(self, event: Arguments) -> Iterator[Json]:
        assert self._open is not None, "arguments follow the beginning of their call"
        if self._open["type"] == "custom_tool_call":
            self._said += event.text
            return
        self._open["arguments"] += event.text
        at = len(self.response.output) - 1
        yield self._told("function_call_arguments.delta", at, delta=event.text)

    def _call_ends(self, _: CallEnds) -> Iterator[Json]:
        yield from self._close()

    def _opens(self, item: Json, part: Json) -> Iterator[Json]:
        self._open = item
        at = self._add(item)
        yield self._event(
            "response.output_item.added", output_index=at, item={**item, "content": []}
        )
        item["content"].append(part)
        yield self._told("content_part.added", at, content_index=0, part=dict(part))

    def _leave(self) -> Iterator[Json]:
        """End what is open as far as it came."""
        yield from self._close("completed" if self.response.status == "completed" else "incomplete")
        for call_id, at in self._calls.items():
            item = self.response.output[at]
            if item["status"] == "in_progress":
                self.store_result(interrupted_result(call_id, item["name"], item["arguments"]))
                item["status"] = "incomplete"
                yield self._told("mcp_call.failed", at)
                yield self._event("response.output_item.done", output_index=at, item=dict(item))

    def _close(self, status: str = "completed") -> Iterator[Json]:
        """End the item that is open."""
        item, self._open = self._open, None
        if item is None:
            return
        at = len(self.response.output) - 1
        item["status"] = status
        if item["type"] == "custom_tool_call":
            item["input"] = json.loads(self._said)["input"]
            yield self._told("custom_tool_call_input.delta", at, delta=item["input"])
            yield self._told("custom_tool_call_input.done", at, input=item["input"])
        elif item["type"] == "function_call":
            told = {"arguments": item["arguments"], "name": item["name"]}
            yield self._told("function_call_arguments.done", at, **told)
        else:
            part = item["content"][0]
            kind = part["type"]
            told = {"logprobs": part["logprobs"]} if kind == "output_text" else {}
            yield self._told(f"{kind}.done", at, content_index=0, text=part["text"], **told)
            yield self._told("content_part.done", at, content_index=0, part=dict(part))
        yield self._event("response.output_item.done", output_index=at, item=dict(item))

    def _part(self) -> tuple[int, Json]:
        assert self._open is not None, "a part is of an open item"
        part: Json = self._open["content"][0]
        return len(self.response.output) - 1, part

    def _add(self, item: Json) -> int:
        self.response.output.append(item)
        return len(self.response.output) - 1

    def _told(self, kind: str, at: int, **fields: Any) -> Json:
        item_id = self.response.output[at]["id"]
        return self._event(f"response.{kind}", item_id=item_id, output_index=at, **fields)

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, "sequence_number": len(self.events), **fields}
        self.events.append(event)
        return event


EVENT_HANDLERS: Mapping[type[Event], Callable[[ResponseEventBuilder, Any], Iterator[Json]]] = {
    Arguments: ResponseEventBuilder._arguments,  # noqa: SLF001 - the table of this class's own methods
    CallBegins: ResponseEventBuilder._call_begins,  # noqa: SLF001
    CallEnds: ResponseEventBuilder._call_ends,  # noqa: SLF001
    Reasoning: ResponseEventBuilder._reasoning,  # noqa: SLF001
    Text: ResponseEventBuilder._text,  # noqa: SLF001
}


def terminal_event(body: Json, number: int) -> Json:
    """Return the last event of a response, by its status."""
    kind = TERMINAL_EVENTS.get(body["status"], "failed")
    return {"type": f"response.{kind}", "sequence_number": number, "response": body}


def _error(fault: ToolCallError, outcome: ToolResult) -> Json:
    """Return a fault in the closest of OpenAI's shapes, our own envelope's fields beside it."""
    own = outcome.envelope()["error"]
    if fault.kind in HTTP_ERRORS and not (fault.code or 0) < 0:
        return {**own, "type": "http_error", "code": fault.code or 503, "message": fault.message}
    if (fault.code or 0) < 0:
        return {**own, "type": "mcp_protocol_error", "code": fault.code, "message": fault.message}
    content = [{"type": "text", "text": outcome.for_model()}]
    return {**own, "type": "mcp_tool_execution_error", "content": content}


def _logprob(token: TokenLogprob) -> Json:
    def alone(one: TokenLogprob) -> Json:
        return {"token": one.token, "logprob": one.logprob, "bytes": list(one.bytes)}

    return {**alone(token), "top_logprobs": [alone(one) for one in token.top]}
