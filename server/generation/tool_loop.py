"""The tool loop: turns of the model, and between them the tool calls that the server runs."""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace

import anyio
from opentelemetry.trace import INVALID_SPAN, use_span

from falsework.grammars.events import Arguments, Call, CallBegins, CallEnds, Event, Reasoning, Text
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.messages import Message
from falsework.server.errors import APIError
from falsework.server.generation.choice import ChoiceDelta, FinishReason
from falsework.server.generation.request import GenerationRequest
from falsework.server.generation.turn import PreparedTurn
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.generation.usage import NO_USAGE, Usage
from falsework.server.ids import new_id
from falsework.server.observability import RequestMetrics, telemetry
from falsework.server.tools import ToolCall, ToolRun
from falsework.server.tools.results import ToolResult


@dataclass(frozen=True)
class ToolCallsStarted:
    """Calls that the server is about to run."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class ToolCallsFinished:
    """The results of one turn's calls, in the order of the calls."""

    outcomes: tuple[ToolResult, ...]


@dataclass(frozen=True)
class ApprovalRequired:
    """Calls that wait for the client's approval."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class DeadlineExceeded:
    """The deadline has passed before the reply was complete."""


LoopEvent = (
    ChoiceDelta | Usage | ToolCallsStarted | ToolCallsFinished | ApprovalRequired | DeadlineExceeded
)


@dataclass
class _Turn:
    """What one turn of the model has said so far."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    finish: FinishReason | None = None
    calls: list[ToolCall] = field(default_factory=list)
    ready: list[ToolCall] = field(default_factory=list)
    """Those of `calls` that the server runs now."""
    results: list[ToolResult] = field(default_factory=list)


@dataclass
class ToolLoop:
    """Runs one request to its end.

    `server_tools` are the names of the tools that the server runs; of these, calls of `approval`
    wait for the client, as do those for which the tools file wants it where `can_ask` is set.
    """

    runner: TurnRunner
    run: ToolRun
    metrics: RequestMetrics
    server_tools: frozenset[str]
    approval: frozenset[str] = frozenset()
    can_ask: bool = False
    deadline: float = math.inf
    """The client's, by the event loop's clock: it holds where the server runs no tools."""
    clients_calls: int = 0
    usage: Usage = NO_USAGE

    async def stream(
        self, request: GenerationRequest, first: PreparedTurn | None = None
    ) -> AsyncGenerator[LoopEvent]:
        """Yield the events of all turns as one reply; the last delta has the finish_reason.

        `first` is the first turn, where it was built already.
        """
        turn = _Turn()
        following: GenerationRequest | None = request
        with self.workflow_span():
            while following is not None:
                request, turn = following, _Turn()
                async with aclosing(self._stream_turn(request, turn, first)) as events:
                    async for event in events:
                        yield event
                following, first = self._next_request(request, turn), None
        if turn.finish is None:
            yield DeadlineExceeded()
        yield ChoiceDelta(0, (), (), self._finish(turn))
        yield self.usage

    @contextmanager
    def workflow_span(self) -> Iterator[None]:
        """Trace the request; once something was written, clients are told not to repeat it."""
        metrics = self.metrics
        if metrics.run_id == self.run.id:
            yield  # within the workflow of whoever had something to run before the first turn
            return
        metrics.run_id = self.run.id
        attributes = {
            telemetry.ATTR_OPERATION: "invoke_workflow",
            telemetry.WORKFLOW_NAME: metrics.api,
        }
        metrics.workflow = workflow = telemetry.TRACER.start_span(
            telemetry.SPAN_WORKFLOW.format(name=metrics.api), attributes=attributes
        )
        try:
            yield
        except APIError as error:
            if any(result.effect in {"applied", "unknown"} for result in self.run.executed):
                error.headers = {**error.headers, "x-should-retry": "false"}
            raise
        finally:
            workflow.end()
            metrics.workflow = INVALID_SPAN
            metrics.tool_calls = len(self.run.executed)
            metrics.deadline_left = self.run.deadline.remaining()

    async def _stream_turn(
        self, request: GenerationRequest, turn: _Turn, prepared: PreparedTurn | None
    ) -> AsyncGenerator[LoopEvent]:
        """Yield one turn of the model, and run those of its calls that are the server's."""
        allowed = self.run.begin_turn()
        limited = request if allowed else replace(request, choice=ToolChoice("none"))
        async with aclosing(self._deltas(limited, turn, prepared)) as deltas:
            async for delta in deltas:
                yield delta
        turn.calls = [
            self.run.parse(ToolCall(new_id("call_"), name, arguments))
            for name, arguments in zip(turn.names, turn.arguments, strict=True)
        ]
        own = [call for call in turn.calls if call.name in self.server_tools]
        waiting = [call for call in own if self._needs_approval(call)]
        turn.ready = [call for call in own if call not in waiting]
        if turn.ready:
            yield ToolCallsStarted(tuple(turn.ready))
            turn.results = await self.run_calls(turn.ready)
            yield ToolCallsFinished(tuple(turn.results))
        if waiting:
            yield ApprovalRequired(tuple(waiting))

    def _needs_approval(self, call: ToolCall) -> bool:
        """Tell whether the client has to approve a call: by its request, or by the tools file."""
        return call.name in self.approval or (self.can_ask and self.run.requires_approval(call))

    def _next_request(self, request: GenerationRequest, turn: _Turn) -> GenerationRequest | None:
        """Return the request of the next turn; None where the reply is complete."""
        if not turn.ready or len(turn.ready) < len(turn.calls):
            return None  # the rest of a mixed turn is the client's: to run, or to approve
        following = _within_limit(_with_results(request, turn), self.usage)
        turn.finish = turn.finish if following else "length"
        return following

    async def run_calls(
        self, calls: Sequence[ToolCall], approved: frozenset[str] = frozenset()
    ) -> list[ToolResult]:
        """Run calls; the longest of them is what the request waited for."""
        began, results = time.monotonic(), list[ToolResult]()
        self.metrics.phase = "tool"
        context = use_span(
            self.metrics.workflow, record_exception=False, set_status_on_exception=False
        )
        try:
            with context:
                results = await self.run.execute(calls, approved)
        finally:
            self._add_phases(time.monotonic() - began, results)
        return results

    def _add_phases(self, seconds: float, results: Sequence[ToolResult]) -> None:
        longest = max(results, key=lambda result: result.seconds, default=None)
        parts = {"backoff": longest.backoff, "queue_tool": longest.queued} if longest else {}
        for phase, part in parts.items():
            self.metrics.add_phase(phase, min(part, seconds))
            seconds -= min(part, seconds)
        self.metrics.add_phase("tool", seconds)

    def _finish(self, turn: _Turn) -> FinishReason:
        if turn.finish is None or turn.finish == "length":
            return "length"  # None: the deadline cut it
        return "tool_calls" if self.clients_calls else "stop"

    async def _deltas(
        self, request: GenerationRequest, turn: _Turn, prepared: PreparedTurn | None
    ) -> AsyncGenerator[ChoiceDelta]:
        """Yield one turn: all but the calls that the server runs, and its end."""
        deadline = self.deadline
        if self.server_tools:
            deadline = anyio.current_time() + max(0.0, self.run.deadline.remaining())
        async with aclosing(self.runner.stream(request, self.metrics, turn=prepared)) as deltas:
            while (delta := await self._next(deltas, deadline)) is not None:
                if isinstance(delta, Usage):
                    self.usage += delta
                    continue
                turn.finish = delta.finish or turn.finish
                events = tuple(
                    sent for event in delta.events for sent in self._collect(event, turn)
                )
                if events or delta.logprobs or delta.ended_by:
                    yield replace(delta, events=events, finish=None)

    async def _next(
        self, deltas: AsyncIterator[ChoiceDelta | Usage], deadline: float
    ) -> ChoiceDelta | Usage | None:
        """Return the next delta, None at the end or once the deadline has passed."""
        with anyio.CancelScope(deadline=deadline):
            return await anext(deltas, None)
        self.run.stopped_by = self.run.stopped_by or "deadline"
        return None

    def _collect(self, event: Event, turn: _Turn) -> list[Event]:
        """Add an event to the turn; return what of it the client is sent."""
        match event:
            case Text(text):
                turn.text.append(text)
            case Reasoning(text):
                turn.reasoning.append(text)
            case CallBegins(_, name):
                turn.names.append(name)
                turn.arguments.append("")
                if name in self.server_tools:
                    return []
                self.clients_calls += 1
                return [CallBegins(self.clients_calls - 1, name)]
            case Arguments(_, text):
                turn.arguments[-1] += text
                own = turn.names[-1] in self.server_tools
                return [] if own else [Arguments(self.clients_calls - 1, text)]
            case CallEnds():
                own = turn.names[-1] in self.server_tools
                return [] if own else [CallEnds(self.clients_calls - 1)]
        return [event]


def _within_limit(request: GenerationRequest, usage: Usage) -> GenerationRequest | None:
    """Return the request with what is left of its token limit; None where nothing is."""
    if not request.limit:
        return request
    left = request.limit - usage.completion
    sampling = replace(request.sampling, max_tokens=left)
    return replace(request, sampling=sampling) if left > 0 else None


def _with_results(request: GenerationRequest, turn: _Turn) -> GenerationRequest:
    """Return the request once its calls have results; a call that was forced has been made."""
    message = Message(
        "assistant",
        "".join(turn.text),
        calls=tuple(Call(call.name, call.arguments) for call in turn.ready),
        call_ids=tuple(call.id for call in turn.ready),
        reasoning="".join(turn.reasoning),
    )
    results = (
        Message("tool", result.for_model(), call_id=call.id, name=call.name)
        for call, result in zip(turn.ready, turn.results, strict=True)
    )
    forced = request.choice.mode != "none"
    choice = replace(request.choice, mode="auto") if forced else request.choice
    messages = (*request.messages, message, *results)
    return replace(request, messages=messages, choice=choice, named=False)
