"""A request with tools that the server runs: the model's turns, and the calls between them."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import anyio
from opentelemetry.trace import INVALID_SPAN, Span, use_span

from falsework.grammars.calls import Arguments, Call, CallBegins, CallEnds, Event, Reasoning, Text
from falsework.grammars.policy import ToolChoice
from falsework.prompts.messages import Message
from falsework.runtime import telemetry
from falsework.runtime.outcomes import Outcome
from falsework.runtime.runs import Run
from falsework.runtime.tools import Asked
from falsework.server.chat import Chat
from falsework.server.choices import FinishReason, Step
from falsework.server.questions import Question
from falsework.server.refusals import Refusal
from falsework.server.replies import Usage, new_id
from falsework.server.watching.watches import Watch


@dataclass(frozen=True)
class Calling:
    """Calls that the server is about to run."""

    calls: tuple[Asked, ...]


@dataclass(frozen=True)
class Called:
    """The outcomes of one round, in the order of the calls."""

    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Waiting:
    """Calls that wait for the client's approval."""

    calls: tuple[Asked, ...]


Told = Step | Usage | Calling | Called | Waiting


@dataclass
class _Turn:
    """What one turn of the model said, heard so far."""

    text: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    finish: FinishReason | None = None


@dataclass
class Rounds:
    """Plays one request; `served` are the names of the tools that the server runs.

    `waits` tells of a call whether it needs the client's approval first.
    """

    chat: Chat
    run: Run
    watch: Watch
    served: frozenset[str]
    waits: Callable[[Asked], bool] = lambda _: False
    clients_calls: int = 0
    workflow: Span = INVALID_SPAN

    async def told(self, question: Question) -> AsyncGenerator[Told]:
        """Tell the steps of all turns as one reply; the last step has the finish_reason."""
        usage = Usage(0, 0)
        self.watch.run = self.run
        self.workflow = telemetry.TRACER.start_span(telemetry.WORKFLOW)
        try:
            while True:
                allowed = self.run.may_call()
                turn = _Turn()
                async with aclosing(self._turn(_limited(question, allowed=allowed), turn)) as steps:
                    async for step in steps:
                        if isinstance(step, Usage):
                            usage = usage.plus(step)
                        else:
                            yield step
                calls = self._asked(turn)
                ours = tuple(each for each in calls if each.name in self.served)
                if not ours:
                    break
                if waiting := tuple(each for each in ours if self.waits(each)):
                    yield Waiting(waiting)
                    break
                yield Calling(ours)
                outcomes = await self._run(ours)
                yield Called(tuple(outcomes))
                if len(ours) < len(calls):
                    break  # the client's part of a mixed turn is the client's to run
                question = _after(question, turn, ours, outcomes)
                if (left := _left(question, usage)) is None:
                    turn.finish = "length"
                    break
                question = left
        except Refusal as refusal:
            if any(outcome.effect in {"applied", "unknown"} for outcome in self.run.executed):
                refusal.headers = {**refusal.headers, "x-should-retry": "false"}
            raise
        finally:
            self.workflow.end()
        yield Step(0, (), (), self._finish(turn))
        yield usage

    async def _run(self, calls: Sequence[Asked]) -> list[Outcome]:
        """Run the calls of a turn; the longest of them is what the request waited for."""
        began = time.monotonic()
        with use_span(self.workflow):
            outcomes = await self.run.call(calls)
        seconds = time.monotonic() - began
        longest = max(outcomes, key=lambda outcome: outcome.seconds)
        for phase, part in (("backoff", longest.backoff), ("queue_tool", longest.queued)):
            self.watch.spent(phase, min(part, seconds))
            seconds -= min(part, seconds)
        self.watch.spent("tool", seconds)
        return outcomes

    def _finish(self, turn: _Turn) -> FinishReason:
        if turn.finish is None:
            return "length"  # the deadline cut it
        if turn.finish == "length" or self.clients_calls:
            return "length" if turn.finish == "length" else "tool_calls"
        return "stop"

    async def _turn(self, question: Question, turn: _Turn) -> AsyncGenerator[Step | Usage]:
        """Tell one turn: all but the calls that the server runs, and its end."""
        async with aclosing(self.chat.told(question, self.watch)) as steps:
            while (step := await self._next(steps)) is not None:
                if isinstance(step, Usage):
                    yield step
                    continue
                turn.finish = step.finish or turn.finish
                events = tuple(told for event in step.events for told in self._hear(event, turn))
                if events or step.logprobs:
                    yield replace(step, events=events, finish=None)

    async def _next(self, steps: AsyncIterator[Step | Usage]) -> Step | Usage | None:
        """Return the next step, None at the end or once the deadline has passed."""
        with anyio.move_on_after(max(0.0, self.run.deadline.left())):
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

    def _asked(self, turn: _Turn) -> list[Asked]:
        said = zip(turn.names, turn.arguments, strict=True)
        return [Asked(new_id("call_"), name, arguments) for name, arguments in said]


def _left(question: Question, usage: Usage) -> Question | None:
    """Return the question with what is left of its token limit; None where nothing is."""
    limit = question.limit
    if not limit:
        return question
    left = limit - usage.completion
    sampling = replace(question.sampling, max_tokens=left)
    return replace(question, sampling=sampling) if left > 0 else None


def _limited(question: Question, *, allowed: bool) -> Question:
    return question if allowed else replace(question, choice=ToolChoice("none"))


def _after(
    question: Question, turn: _Turn, calls: Sequence[Asked], outcomes: Sequence[Outcome]
) -> Question:
    """Return the question of the next turn: what was forced has happened."""
    said = Message(
        "assistant",
        "".join(turn.text),
        calls=tuple(Call(each.name, each.arguments) for each in calls),
        call_ids=tuple(each.id for each in calls),
        reasoning="".join(turn.thought),
    )
    results = (
        Message("tool", outcome.text(), call_id=each.id, name=each.name)
        for each, outcome in zip(calls, outcomes, strict=True)
    )
    choice = (
        replace(question.choice, mode="auto") if question.choice.mode != "none" else question.choice
    )
    return replace(
        question, messages=(*question.messages, said, *results), choice=choice, named=False
    )
