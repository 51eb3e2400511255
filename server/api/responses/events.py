"""The reducer of a response: typed events in, the protocol's events out, the response their fold.

It alone writes status, output items and sequence numbers.
"""

import time
from collections.abc import Mapping, Sequence

from falsework.server.api.responses.client_tools import CallName
from falsework.server.api.responses.event_log import EventLog
from falsework.server.api.responses.messages import interrupted_result
from falsework.server.api.responses.model_items import ModelItems
from falsework.server.api.responses.object import ResponseObject
from falsework.server.api.server_tools import BUILTIN_SERVER_LABEL
from falsework.server.errors import APIError, error_body
from falsework.server.generation import (
    ApprovalRequired,
    ChoiceDelta,
    DeadlineExceeded,
    LoopEvent,
    ToolCallsFinished,
    ToolCallsStarted,
    Usage,
)
from falsework.server.tools import ToolCall
from falsework.server.tools.errors import ErrorType, ToolCallError
from falsework.server.tools.results import ToolResult
from falsework.server.types import Json

HTTP_ERRORS: frozenset[ErrorType] = frozenset(
    {"unavailable", "upstream_error", "upstream_rejected"}
)
SERVER_ENDED = "The server ended before the response did."


class ResponseEventBuilder:
    """Builds one response; each method returns the protocol's events of what happened."""

    def __init__(
        self,
        response: ResponseObject,
        labels: Mapping[str, str],
        calls: Mapping[str, CallName],
        *,
        logprobs: bool,
    ) -> None:
        """`labels` are the MCP servers of the tools that come from one.

        `calls` tells how calls of the client's tools are shown, see PreparedRequest.
        """
        self._response = response
        self._labels = labels
        self._log = EventLog(response)
        self._model = ModelItems(self._log, calls, logprobs=logprobs)
        self._calls: dict[str, int] = {}
        """The index of the item of each call that the server runs."""
        self.ended = False

    @property
    def events(self) -> list[Json]:
        """All events so far."""
        return self._log.events

    @property
    def body(self) -> Json:
        """The response as clients read it."""
        return self._response.to_openai()

    @property
    def output(self) -> Sequence[Json]:
        """The output items so far."""
        return self._response.output

    def queue(self) -> None:
        """Begin as queued: it is made in the background."""
        self._response.status = "queued"

    def start(self) -> list[Json]:
        """Begin."""
        self._response.status = "in_progress"
        body = self.body
        return [
            self._log.event("response.created", response=body),
            self._log.event("response.in_progress", response=body),
        ]

    def feed(self, event: LoopEvent) -> list[Json]:
        """Return the events of an event of the tool loop."""
        match event:
            case ChoiceDelta():
                return self._delta(event)
            case ToolCallsStarted(calls=calls):
                return self.calls_started(calls)
            case ToolCallsFinished(outcomes=results):
                return self.calls_finished(results)
            case ApprovalRequired(calls=calls):
                return self._approval_required(calls)
            case DeadlineExceeded():
                self._response.incomplete = "deadline"
            case Usage():
                self._response.usage = event
        return []

    def warn(self, warning: Json) -> None:
        """Add a warning, once."""
        if warning not in self._response.warnings:
            self._response.warnings.append(warning)
        if self.ended and "response" in self.events[-1]:
            self.events[-1]["response"]["warnings"] = list(self._response.warnings)

    def finish(self, runtime: Json | None) -> list[Json]:
        """End as complete, or incomplete; `runtime` is the summary of the tool run."""
        self._response.runtime = runtime
        return self._end()

    def fail(self, error: APIError) -> list[Json]:
        """End as failed: in both shapes that clients look for."""
        if self.ended:
            return []
        body = error_body(error)["error"]
        own = {"code": body["code"] or "server_error", "message": body["message"]}
        self._response.status, self._response.error = "failed", own
        closed = self._close_items()
        self.ended = True
        whole = {**body, **own}
        fields = {key: whole[key] for key in ("code", "message", "param")}
        return [*closed, self._log.event("error", **fields, error=whole)]

    def interrupt(self, *, server_ended: bool) -> list[Json]:
        """End as it stands: cancelled, or because its client or the server went away."""
        if self.ended:
            return []
        response = self._response
        if response.status == "in_progress":
            response.status = "failed" if server_ended else "cancelled"
            if server_ended:
                response.error = {"code": "server_error", "message": SERVER_ENDED}
        return self._end()

    def _end(self) -> list[Json]:
        closed = self._close_items()
        self.ended = True
        if self._response.status == "completed":
            self._response.completed_at = int(time.time())
        return [*closed, self._log.terminal()]

    def list_tools(self, label: str, tools: Sequence[Json]) -> list[Json]:
        """List the tools of an MCP server."""
        item: Json = {
            "id": self._response.next_item_id("mcpl_"),
            "type": "mcp_list_tools",
            "server_label": label,
            "tools": [],
            "error": None,
        }
        index = self._log.add_item(item)
        begun = [
            self._log.added(index, item),
            self._log.item_event("mcp_list_tools.in_progress", index),
        ]
        item["tools"] = list(tools)
        return [
            *begun,
            self._log.item_event("mcp_list_tools.completed", index),
            self._log.done(index),
        ]

    def calls_started(
        self, calls: Sequence[ToolCall], approved_by: Mapping[str, str] = {}
    ) -> list[Json]:
        """Begin calls that the server runs; `approved_by` are the approvals by call id."""
        events = self._model.close()
        for call in calls:
            item = {
                **self._call_fields(call, "mcp_"),
                "type": "mcp_call",
                "arguments": "",
                "output": None,
                "error": None,
                "status": "in_progress",
                "approval_request_id": approved_by.get(call.id),
            }
            index = self._calls[call.id] = self._log.add_item(item)
            events.append(self._log.added(index, item))
            text = item["arguments"] = call.arguments
            events += [
                self._log.item_event("mcp_call.in_progress", index),
                self._log.item_event("mcp_call_arguments.delta", index, delta=text),
                self._log.item_event("mcp_call_arguments.done", index, arguments=text),
            ]
        return events

    def calls_finished(self, results: Sequence[ToolResult]) -> list[Json]:
        """End calls with their results."""
        events: list[Json] = []
        for result in results:
            index = self.set_result(result)
            kind = "mcp_call.failed" if result.error else "mcp_call.completed"
            events += [self._log.item_event(kind, index), self._log.done(index)]
        return events

    def set_result(self, result: ToolResult) -> int:
        """Put the result of a call into its item, and return its index: a write may be late."""
        index, error = self._calls[result.call_id], result.error
        self._response.output[index] |= {
            "status": "failed" if error else "completed",
            "output": None if error else result.for_model(),
            "error": _error_object(error, result) if error else None,
        }
        return index

    def _approval_required(self, calls: Sequence[ToolCall]) -> list[Json]:
        events = self._model.close()
        for call in calls:
            item = {
                **self._call_fields(call, "mcpr_"),
                "type": "mcp_approval_request",
                "arguments": call.arguments,
            }
            index = self._log.add_item(item)
            events += [self._log.added(index, item), self._log.done(index)]
        return events

    def _call_fields(self, call: ToolCall, prefix: str) -> Json:
        label = self._labels.get(call.name, BUILTIN_SERVER_LABEL)
        return {
            "id": self._response.next_item_id(prefix),
            "server_label": label,
            "name": call.name.removeprefix(f"{label}__"),
        }

    def _delta(self, delta: ChoiceDelta) -> list[Json]:
        events = self._model.feed(delta.events, delta.logprobs)
        if delta.finish:
            cut = delta.finish == "length"
            response = self._response
            response.status = "incomplete" if cut else "completed"
            response.incomplete = (response.incomplete or "max_output_tokens") if cut else ""
        return events

    def _close_items(self) -> list[Json]:
        """End what is open as far as it came."""
        completed = self._response.status == "completed"
        events = self._model.close("completed" if completed else "incomplete", "final_answer")
        for call_id, index in self._calls.items():
            item = self._response.output[index]
            if item["status"] == "in_progress":
                self.set_result(interrupted_result(call_id, item["name"], item["arguments"]))
                item["status"] = "incomplete"
                events += [
                    self._log.item_event("mcp_call.failed", index),
                    self._log.done(index),
                ]
        return events


def _error_object(error: ToolCallError, result: ToolResult) -> Json:
    """Return an error in the closest of OpenAI's shapes, our own envelope's fields beside it."""
    own = result.envelope()["error"]
    if error.kind in HTTP_ERRORS and not (error.code or 0) < 0:
        return {**own, "type": "http_error", "code": error.code or 503, "message": error.message}
    if (error.code or 0) < 0:
        return {**own, "type": "mcp_protocol_error", "code": error.code, "message": error.message}
    content = [{"type": "text", "text": result.for_model()}]
    return {**own, "type": "mcp_tool_execution_error", "content": content}
