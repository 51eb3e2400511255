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

from falsework.server.observability import telemetry
from falsework.server.tools.call_metrics import UNKNOWN_TOOL, count_call
from falsework.server.tools.config.policies import RequestPolicy
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import ToolCallError, WriteEffect
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool import CallContext, ServerTool, ToolCall
from falsework.server.tools.unexpected_errors import log_unexpected_error

RecordResult = Callable[[ToolResult], Awaitable[None]]

ANSWER_RESERVE = 0.25

NOT_RECORDED = ToolCallError("internal", "The call couldn't be recorded, so it wasn't made.")

DUPLICATE_NOTE = "The same call was made before; this is what became of it."


class RunToCompletion(Protocol):
    """Runs something to its end, whoever stops waiting for it."""

    async def __call__(self, work: Callable[[], Awaitable[ToolResult]]) -> ToolResult:
        """Return what it ended with."""
        ...


async def record_nothing(_: ToolResult) -> None:
    """Record nothing."""


def _begun(asked: ToolCall) -> ToolResult:
    """Return what is to be known of a write if the process ends before the write does."""
    fault = ToolCallError("cancelled", "The server ended while this call was made.")
    fault.hint = "Check what became of it before doing it again."
    return asked.result(fault=fault, effect="unknown")


def _is_wrong(outcome: ToolResult) -> bool:
    return outcome.fault is not None and outcome.fault.kind == "invalid_arguments"


@dataclass
class ToolRun:
    """The calls of one request.

    `deadline` is the request's; tools may use it up to the reserve for the answer. `record` stores
    each result before the model reads it. `memory` holds the results of an earlier try of the same
    request, `done_before` the tools that succeeded earlier in the conversation.
    """

    id: str
    tools: Mapping[str, ServerTool]
    deadline: Deadline
    policy: RequestPolicy
    finish: RunToCompletion
    principal: str = ""
    record: RecordResult = record_nothing
    max_tool_calls: int | None = None
    memory: dict[tuple[str, str], ToolResult] = field(default_factory=dict)
    done_before: frozenset[str] = frozenset()
    executed: list[ToolResult] = field(default_factory=list)
    stopped_by: str = ""
    steps: int = 0
    reserve: float = 0.0
    """Seconds kept for the answer: the policy's, or a quarter of a short deadline."""
    _identical: Counter[tuple[str, str]] = field(default_factory=Counter)
    _failed_steps: int = 0
    _repairs: bool = False
    _unfinished: set[anyio.Event] = field(default_factory=set)
    _started: int = 0

    def __post_init__(self) -> None:
        self.reserve = min(
            self.policy.answer_reserve, ANSWER_RESERVE * max(0.0, self.deadline.remaining())
        )

    def begin_turn(self) -> bool:
        """Tell whether the next turn of the model may call tools; count the turn."""
        self.steps += 1
        telemetry.REPAIR_TURNS.inc(int(self._repairs))
        if self.steps >= self.policy.max_steps:
            self._stop("max_steps")
        if self._started and self._started >= self._most_calls():
            self._stop("max_tool_calls")
        if self.deadline.remaining() <= self.reserve:
            self._stop("deadline")
        return not self.stopped_by

    async def execute(
        self, asked: Sequence[ToolCall], approved: frozenset[str] = frozenset()
    ) -> list[ToolResult]:
        """Run the calls of one turn; return their outcomes in the order of the calls."""
        ends: list[ToolResult | None] = [None] * len(asked)
        places = anyio.CapacityLimiter(self.policy.max_parallel)
        first_of: dict[tuple[str, str], anyio.Event] = {}

        async def one(index: int, each: ToolCall) -> None:
            key = each.dedup_key
            done = first_of.get(key)
            if done:
                await done.wait()  # the same call, twice in one turn: the first answers both
            else:
                first_of[key] = done = anyio.Event()
            async with places:
                try:
                    ends[index] = await self._one(each, each.id in approved)
                finally:
                    done.set()

        async with anyio.create_task_group() as tasks:
            for index, each in enumerate(map(self.parse, asked)):
                tasks.start_soon(one, index, each)
        outcomes = [end for end in ends if end is not None]
        self.executed += outcomes
        self._judge(outcomes)
        return outcomes

    async def _one(self, asked: ToolCall, approved: bool) -> ToolResult:
        identity = asked.dedup_key
        self._identical[identity] += 1
        if self._identical[identity] > self.policy.max_identical_calls:
            self._stop("identical_calls")
        known = self.memory.get(identity)
        if known and (known.ok or known.effect == "unknown"):
            return replace(known, call_id=asked.id, note=DUPLICATE_NOTE, attempts=0, seconds=0.0)
        refusal = self._refused(asked)
        if refusal:
            return self._refusal(asked, refusal)
        self._started += 1
        tool = self.tools[asked.name]
        under = CallContext(
            self.deadline.minus(self.reserve),
            self.principal,
            self._key(asked),
            approved,
            repairs=self._got_wrong(asked.name),
        )

        async def work() -> ToolResult:
            over = anyio.Event()
            self._unfinished.add(over)
            try:
                return await self._recorded(tool, asked, under)
            finally:
                self._unfinished.discard(over)
                over.set()

        try:
            return await (self.finish(work) if tool.survives_disconnect else work())
        except ToolCallError as fault:  # the server is shutting down
            effect: WriteEffect = "unknown" if tool.has_side_effects else "none"
            outcome = asked.result(fault=fault, effect=effect)
            count_call(outcome, tool.labels)
            return outcome

    async def _recorded(self, tool: ServerTool, asked: ToolCall, under: CallContext) -> ToolResult:
        """Call a tool; a write isn't begun unless that is on record."""
        outcome = asked.result(fault=NOT_RECORDED)
        try:
            if tool.has_side_effects:
                await self.record(_begun(asked))
            outcome = self.memory[asked.dedup_key] = await tool.call(asked, under)
            await self.record(outcome)
        except Exception as fault:  # noqa: BLE001 - the database's: a call fails by its outcome
            log_unexpected_error(telemetry.UNRECORDED_LINE, fault, tool=asked.name)
        return outcome

    async def join(self) -> None:
        """Return once nothing runs any more, what outlives its client included."""
        while self._unfinished:
            await next(iter(self._unfinished)).wait()

    def _refused(self, asked: ToolCall) -> ToolCallError | None:
        tool = self.tools.get(asked.name)
        if tool is None:
            return ToolCallError("unknown_tool", f"There is no tool '{asked.name[:64]}'.")
        if self._started >= self._most_calls():
            self._stop("max_tool_calls")
            return ToolCallError("not_allowed", "No more tool calls are allowed in this request.")
        known = (*self.executed, *self.memory.values())
        done = {one.tool for one in known if one.ok and one.fallback != "value"}
        missing = [name for name in tool.entry.requires if name not in done | self.done_before]
        if missing:
            message = f"'{missing[0]}' has to succeed first."
            return ToolCallError(
                "precondition_failed", message, hint=f"Call '{missing[0]}' before."
            )
        return None

    def _refusal(self, asked: ToolCall, fault: ToolCallError) -> ToolResult:
        """Return the outcome of a call that isn't made."""
        outcome = asked.result(fault=fault)
        tool = self.tools.get(asked.name)
        count_call(outcome, tool.labels if tool else UNKNOWN_TOOL)
        return outcome

    def _got_wrong(self, name: str) -> bool:
        """Tell whether the model got the arguments of this tool's last call wrong."""
        last = next((one for one in reversed(self.executed) if one.tool == name), None)
        return last is not None and _is_wrong(last)

    def _most_calls(self) -> int:
        most = self.policy.max_tool_calls
        return most if self.max_tool_calls is None else min(most, self.max_tool_calls)

    def _judge(self, outcomes: Sequence[ToolResult]) -> None:
        self._repairs = any(_is_wrong(outcome) for outcome in outcomes)
        failed = bool(outcomes) and not any(outcome.ok for outcome in outcomes)
        self._failed_steps = self._failed_steps + 1 if failed else 0
        if self._failed_steps >= self.policy.max_failed_steps:
            self._stop("failed_steps")

    def _stop(self, by: str) -> None:
        if not self.stopped_by:
            self.stopped_by = by
            telemetry.LIMIT_HITS.labels(by).inc()

    def parse(self, call: ToolCall) -> ToolCall:
        """Return the call with its arguments parsed and checked; what is parsed stays as it is."""
        tool = self.tools.get(call.name)
        if call.parsed or tool is None:
            return call
        return replace(call, parsed=tool.parse(call.arguments))

    def requires_approval(self, call: ToolCall) -> bool:
        """Tell whether a person has to approve a call first; wrong arguments need no approval."""
        tool = self.tools[call.name]
        parsed = call.parsed or tool.parse(call.arguments)
        return parsed.error is None and tool.requires_approval(parsed.value)

    def dedup_key(self, call: ToolCall) -> tuple[str, str]:
        """Return what equal calls have in common: the tool and the canonical arguments."""
        return self.parse(call).dedup_key

    def _key(self, asked: ToolCall) -> str:
        """Return what makes this call the same call when the whole request is sent again."""
        name, arguments = asked.dedup_key
        return hmac.new(
            self.id.encode(), f"{name}\n{arguments}".encode(errors="replace"), hashlib.sha256
        ).hexdigest()

    def summary(self) -> dict[str, Any]:
        """Return what the client is told beside the reply."""
        partial = any(not outcome.ok or outcome.partial for outcome in self.executed)
        return {
            "steps": self.steps,
            "tool_calls": self._started,
            "partial": partial,
            "stopped_by": self.stopped_by or None,
        }
