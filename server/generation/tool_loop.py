"""A request with tools that the server runs: the model's turns, and the calls between them."""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace

import anyio
from opentelemetry.trace import INVALID_SPAN, use_span

from falsework.grammars.events import Arguments, Call, CallBegins, CallEnds, Event, Reasoning, Text
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.messages import Message
from falsework.server.api.chat.objects import Usage, new_id
from falsework.server.api.chat.request import GenerationRequest
from falsework.server.errors import APIError
from falsework.server.generation.choice import ChoiceDelta, FinishReason
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.observability import telemetry
from falsework.server.observability.request_metrics import RequestMetrics
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import ToolCall
from falsework.server.tools.tool_run import ToolRun


@dataclass(frozen=True)
class ToolCallsStarted:
    """Calls that the server is about to run."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class ToolCallsFinished:
    """The outcomes of one round, in the order of the calls."""

    outcomes: tuple[ToolResult, ...]


@dataclass(frozen=True)
class ApprovalRequired:
    """Calls that wait for the client's approval."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class DeadlineExceeded:
    """The deadline has passed before the reply was complete."""


NO_USAGE = Usage(0, 0)

LoopEvent = (
    ChoiceDelta | Usage | ToolCallsStarted | ToolCallsFinished | ApprovalRequired | DeadlineExceeded
)


@dataclass
class _Turn:
    """What one turn of the model said, heard so far."""

    text: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    finish: FinishReason | None = None
    asked: list[ToolCall] = field(default_factory=list)
    ready: list[ToolCall] = field(default_factory=list)
    """Those of `asked` that the server runs now."""
    outcomes: list[ToolResult] = field(default_factory=list)


@dataclass
class ToolLoop:
    """Plays one request; `served` are the names of the tools that the server runs.

    `waits` tells of a call whether it needs the client's approval first.
    """

    chat: TurnRunner
    run: ToolRun
    watch: RequestMetrics
    served: frozenset[str]
    waits: Callable[[ToolCall], bool] = lambda _: False
    clients_calls: int = 0
    usage: Usage = NO_USAGE

    async def stream(self, question: GenerationRequest) -> AsyncGenerator[LoopEvent]:
        """Tell the steps of all turns as one reply; the last step has the finish_reason."""
        turn = _Turn()
        following: GenerationRequest | None = question
        with self.workflow_span():
            while following is not None:
                question, turn = following, _Turn()
                async with aclosing(self._round(question, turn)) as told:
                    async for each in told:
                        yield each
                following = self._following(question, turn)
        if turn.finish is None:
            yield DeadlineExceeded()
        yield ChoiceDelta(0, (), (), self._finish(turn))
        yield self.usage

    @contextmanager
    def workflow_span(self) -> Iterator[None]:
        """Watch the request; once something was written, tell clients not to repeat it."""
        if self.watch.run_id == self.run.id:
            yield  # within the workflow of whoever had something to run before the first turn
            return
        self.watch.run_id = self.run.id
        name = self.watch.api
        attributes = {telemetry.ATTR_OPERATION: "invoke_workflow", telemetry.WORKFLOW_NAME: name}
        self.watch.workflow = workflow = telemetry.TRACER.start_span(
            telemetry.SPAN_WORKFLOW.format(name=name), attributes=attributes
        )
        try:
            yield
        except APIError as refusal:
            if any(outcome.effect in {"applied", "unknown"} for outcome in self.run.executed):
                refusal.headers = {**refusal.headers, "x-should-retry": "false"}
            raise
        finally:
            workflow.end()
            self.watch.workflow = INVALID_SPAN
            self.watch.tool_calls = len(self.run.executed)
            self.watch.deadline_left = self.run.deadline.remaining()

    async def _round(self, question: GenerationRequest, turn: _Turn) -> AsyncGenerator[LoopEvent]:
        """Tell one turn of the model, and run those of its calls that are ours."""
        allowed = self.run.begin_turn()
        async with aclosing(self._turn(_limited(question, allowed=allowed), turn)) as steps:
            async for step in steps:
                yield step
        said = zip(turn.names, turn.arguments, strict=True)
        turn.asked = [ToolCall(new_id("call_"), name, arguments) for name, arguments in said]
        ours = [each for each in turn.asked if each.name in self.served]
        waiting = [each for each in ours if self.waits(each)]
        turn.ready = [each for each in ours if each not in waiting]
        if turn.ready:
            yield ToolCallsStarted(tuple(turn.ready))
            turn.outcomes = await self.run_calls(turn.ready)
            yield ToolCallsFinished(tuple(turn.outcomes))
        if waiting:
            yield ApprovalRequired(tuple(waiting))

    def _following(self, question: GenerationRequest, turn: _Turn) -> GenerationRequest | None:
        """Return the question of the next turn; None where the reply is complete."""
        if not turn.ready or len(turn.ready) < len(turn.asked):
            return None  # the rest of a mixed turn is the client's: to run, or to approve
        left = _left(_after(question, turn), self.usage)
        turn.finish = turn.finish if left else "length"
        return left

    async def run_calls(
        self, calls: Sequence[ToolCall], approved: frozenset[str] = frozenset()
    ) -> list[ToolResult]:
        """Run calls; the longest of them is what the request waited for."""
        began, outcomes = time.monotonic(), list[ToolResult]()
        self.watch.phase = "tool"
        try:
            with use_span(self.watch.workflow, record_exception=False,
                          set_status_on_exception=False):  # fmt: skip
                outcomes = await self.run.execute(calls, approved)
        finally:
            self._spent(time.monotonic() - began, outcomes)
        return outcomes

    def _spent(self, seconds: float, outcomes: Sequence[ToolResult]) -> None:
        longest = max(outcomes, key=lambda outcome: outcome.seconds, default=None)
        parts = {"backoff": longest.backoff, "queue_tool": longest.queued} if longest else {}
        for phase, part in parts.items():
            self.watch.add_phase(phase, min(part, seconds))
            seconds -= min(part, seconds)
        self.watch.add_phase("tool", seconds)

    def _finish(self, turn: _Turn) -> FinishReason:
        if turn.finish is None:
            return "length"  # the deadline cut it
        if turn.finish == "length" or self.clients_calls:
            return "length" if turn.finish == "length" else "tool_calls"
        return "stop"

    async def _turn(self, question: GenerationRequest, turn: _Turn) -> AsyncGenerator[ChoiceDelta]:
        """Tell one turn: all but the calls that the server runs, and its end."""
        async with aclosing(self.chat.stream(question, self.watch)) as steps:
            while (step := await self._next(steps)) is not None:
                if isinstance(step, Usage):
                    self.usage = self.usage.__add__(step)
                    continue
                turn.finish = step.finish or turn.finish
                events = tuple(told for event in step.events for told in self._hear(event, turn))
                if events or step.logprobs:
                    yield replace(step, events=events, finish=None)

    async def _next(self, steps: AsyncIterator[ChoiceDelta | Usage]) -> ChoiceDelta | Usage | None:
        """Return the next step, None at the end or once the deadline of its tools has passed."""
        left = self.run.deadline.remaining() if self.served else math.inf
        with anyio.move_on_after(max(0.0, left)):
            return await anext(steps, None)
        self.run.stopped_by = self.run.stopped_by or "deadline"
        return None

    def _hear(self, event: Event, turn: _Turn) -> list[Event]:
        match event:
            case Text(text):
                turn.text.append(text)
            case Reasoning(text):
                turn.thought.append(text)
            case CallBegins(_, name):
                turn.names.append(name)
                turn.arguments.append("")
                if name in self.served:
                    return []
                self.clients_calls += 1
                return [CallBegins(self.clients_calls - 1, name)]
            case Arguments(_, text):
                turn.arguments[-1] += text
                is_ours = turn.names[-1] in self.served
                return [] if is_ours else [Arguments(self.clients_calls - 1, text)]
            case CallEnds():
                is_ours = turn.names[-1] in self.served
                return [] if is_ours else [CallEnds(self.clients_calls - 1)]
        return [event]


def _left(question: GenerationRequest, usage: Usage) -> GenerationRequest | None:
    """Return the question with what is left of its token limit; None where nothing is."""
    limit = question.limit
    if not limit:
        return question
    left = limit - usage.completion
    sampling = replace(question.sampling, max_tokens=left)
    return replace(question, sampling=sampling) if left > 0 else None


def _limited(question: GenerationRequest, *, allowed: bool) -> GenerationRequest:
    return question if allowed else replace(question, choice=ToolChoice("none"))


def _after(question: GenerationRequest, turn: _Turn) -> GenerationRequest:
    """Return the question once its calls have results; what was forced has happened."""
    said = Message(
        "assistant",
        "".join(turn.text),
        calls=tuple(Call(each.name, each.arguments) for each in turn.ready),
        call_ids=tuple(each.id for each in turn.ready),
        reasoning="".join(turn.thought),
    )
    results = (
        Message("tool", outcome.for_model(), call_id=each.id, name=each.name)
        for each, outcome in zip(turn.ready, turn.outcomes, strict=True)
    )
    forced = question.choice.mode != "none"
    choice = replace(question.choice, mode="auto") if forced else question.choice
    messages = (*question.messages, said, *results)
    return replace(question, messages=messages, choice=choice, named=False)
