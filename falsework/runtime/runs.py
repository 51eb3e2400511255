"""The tool calls of one request: in parallel and in order, remembered, and within limits.

A limit doesn't end a request with an error: it ends the calls, and the model is asked for its
answer.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import anyio

from falsework.runtime import telemetry
from falsework.runtime.deadlines import Deadline
from falsework.runtime.faults import Effect, Fault
from falsework.runtime.outcomes import Outcome, canonical
from falsework.runtime.policies import RequestPolicy
from falsework.runtime.tools import Asked, Circumstances, ServerTool
from falsework.runtime.unforeseen import log_unforeseen

Record = Callable[[Outcome], Awaitable[None]]

QUARTER = 0.25

NOT_RECORDED = Fault("internal", "The call couldn't be recorded, so it wasn't made.")

AGAIN = "The same call was made before; this is what became of it."


class Finish(Protocol):
    """Runs something to its end, whoever stops waiting for it."""

    async def __call__(self, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Return what it ended with."""
        ...


async def _forget(_: Outcome) -> None:
    """Record nothing."""


def _begun(asked: Asked) -> Outcome:
    """Return what is to be known of a write if the process ends before the write does."""
    fault = Fault("cancelled", "The server ended while this call was made.")
    fault.hint = "Check what became of it before doing it again."
    return Outcome(asked.id, asked.name, asked.arguments, fault=fault, effect="unknown")


@dataclass
class Run:
    """The calls of one request.

    `deadline` is the request's; tools may use it up to the reserve for the answer. `record` is told
    each outcome before the model is. `memory` are outcomes of an earlier try of the same request,
    `done_before` the tools that succeeded earlier in the conversation.
    """

    id: str
    tools: Mapping[str, ServerTool]
    deadline: Deadline
    policy: RequestPolicy
    finish: Finish
    principal: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    record: Record = _forget
    max_tool_calls: int | None = None
    memory: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    done_before: frozenset[str] = frozenset()
    executed: list[Outcome] = field(default_factory=list)
    stopped_by: str = ""
    steps: int = 0
    reserve: float = 0.0
    """Seconds kept for the answer: the policy's, or a quarter of a short deadline."""
    _identical: Counter[tuple[str, str]] = field(default_factory=Counter)
    _failed_steps: int = 0
    _unfinished: set[anyio.Event] = field(default_factory=set)
    _started: int = 0

    def __post_init__(self) -> None:
        self.reserve = min(self.policy.answer_reserve, QUARTER * max(0.0, self.deadline.left()))

    def may_call(self) -> bool:
        """Tell whether the next turn of the model may call tools; count the turn."""
        self.steps += 1
        if self.steps >= self.policy.max_steps:
            self._stop("max_steps")
        if self._started and self._started >= self._most_calls():
            self._stop("max_tool_calls")
        if self.deadline.left() <= self.reserve:
            self._stop("deadline")
        return not self.stopped_by

    async def call(
        self, asked: Sequence[Asked], approved: frozenset[str] = frozenset()
    ) -> list[Outcome]:
        """Run the calls of one turn; return their outcomes in the order of the calls."""
        ends: list[Outcome | None] = [None] * len(asked)
        places = anyio.CapacityLimiter(self.policy.max_parallel)
        first_of: dict[tuple[str, str], anyio.Event] = {}

        async def one(index: int, each: Asked) -> None:
            mine = self.identity(each)
            done = first_of.get(mine)
            if done:
                await done.wait()  # the same call, twice in one turn: the first answers both
            else:
                first_of[mine] = done = anyio.Event()
            async with places:
                try:
                    ends[index] = await self._one(each, each.id in approved)
                finally:
                    done.set()

        async with anyio.create_task_group() as tasks:
            for index, each in enumerate(asked):
                tasks.start_soon(one, index, each)
        outcomes = [end for end in ends if end is not None]
        self.executed += outcomes
        self._judge(outcomes)
        return outcomes

    async def _one(self, asked: Asked, approved: bool) -> Outcome:
        identity = self.identity(asked)
        self._identical[identity] += 1
        if self._identical[identity] > self.policy.max_identical_calls:
            self._stop("identical_calls")
        known = self.memory.get(identity)
        if known and (known.ok or known.effect == "unknown"):
            return replace(known, call_id=asked.id, note=AGAIN, attempts=0, seconds=0.0)
        refusal = self._refused(asked)
        if refusal:
            return Outcome(asked.id, asked.name, asked.arguments, fault=refusal)
        self._started += 1
        tool = self.tools[asked.name]
        under = Circumstances(
            self.deadline.before(self.reserve),
            self.principal,
            self._key(asked),
            self.headers,
            approved,
        )

        async def work() -> Outcome:
            over = anyio.Event()
            self._unfinished.add(over)
            try:
                return await self._recorded(tool, asked, under)
            finally:
                self._unfinished.discard(over)
                over.set()

        try:
            return await (self.finish(work) if tool.finishes else work())
        except Fault as fault:  # the server is shutting down
            effect: Effect = "unknown" if tool.writes else "none"
            return Outcome(asked.id, asked.name, asked.arguments, fault=fault, effect=effect)
        except anyio.get_cancelled_exc_class():
            telemetry.CANCELLED.labels(asked.name).inc()
            raise

    async def _recorded(self, tool: ServerTool, asked: Asked, under: Circumstances) -> Outcome:
        """Call a tool; a write isn't begun unless that is on record."""
        outcome = Outcome(asked.id, asked.name, asked.arguments, fault=NOT_RECORDED)
        try:
            if tool.writes:
                await self.record(_begun(asked))
            outcome = self.memory[self.identity(asked)] = await tool.call(asked, under)
            await self.record(outcome)
        except Exception as fault:  # noqa: BLE001 - the database's: a call fails by its outcome
            log_unforeseen("outcome not recorded", fault, tool=asked.name)
        return outcome

    async def settle(self) -> None:
        """Return once nothing runs any more, what outlives its client included."""
        while self._unfinished:
            await next(iter(self._unfinished)).wait()

    def _refused(self, asked: Asked) -> Fault | None:
        tool = self.tools.get(asked.name)
        if tool is None:
            return Fault("unknown_tool", f"There is no tool '{asked.name[:64]}'.")
        if self._started >= self._most_calls():
            self._stop("max_tool_calls")
            return Fault("not_allowed", "No more tool calls are allowed in this request.")
        known = (*self.executed, *self.memory.values())
        done = {one.tool for one in known if one.ok and one.fallback != "value"}
        missing = [name for name in tool.entry.requires if name not in done | self.done_before]
        if missing:
            message = f"'{missing[0]}' has to succeed first."
            return Fault("precondition_failed", message, hint=f"Call '{missing[0]}' before.")
        return None

    def _most_calls(self) -> int:
        most = self.policy.max_tool_calls
        return most if self.max_tool_calls is None else min(most, self.max_tool_calls)

    def _judge(self, outcomes: Sequence[Outcome]) -> None:
        failed = bool(outcomes) and not any(outcome.ok for outcome in outcomes)
        self._failed_steps = self._failed_steps + 1 if failed else 0
        if self._failed_steps >= self.policy.max_failed_steps:
            self._stop("failed_steps")

    def _stop(self, by: str) -> None:
        if not self.stopped_by:
            self.stopped_by = by
            telemetry.STOPPED.labels(by).inc()

    def identity(self, asked: Asked) -> tuple[str, str]:
        """Return what equal calls have in common: the tool and the canonical arguments."""
        tool = self.tools.get(asked.name)
        try:
            return (asked.name, canonical(tool.read(asked.arguments) if tool else {}))
        except Fault:
            return (asked.name, asked.arguments)

    def _key(self, asked: Asked) -> str:
        """Return what makes this call the same call when the whole request is sent again."""
        name, arguments = self.identity(asked)
        return hmac.new(
            self.id.encode(), f"{name}\n{arguments}".encode(errors="replace"), hashlib.sha256
        ).hexdigest()

    def told(self) -> dict[str, Any]:
        """Return what the client is told beside the reply."""
        partial = any(not outcome.ok or outcome.degraded for outcome in self.executed)
        return {
            "steps": self.steps,
            "tool_calls": self._started,
            "partial": partial,
            "stopped_by": self.stopped_by or None,
        }
