"""The tool calls of one request: run in parallel, deduplicated, and limited.

A limit doesn't fail the request: further calls are refused, and the model is asked for its answer.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import anyio

from falsework.server.observability import telemetry
from falsework.server.tools.call_metrics import UNKNOWN_TOOL, count_call, log_unexpected_error
from falsework.server.tools.config import RequestPolicy
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import CHECK_HINT, ToolCallError, WriteEffect
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool import ServerTool
from falsework.server.tools.tool_call import CallContext, ToolCall

RecordResult = Callable[[ToolResult], Awaitable[None]]
"""Stores the result of a call; raises where it can't."""

ANSWER_RESERVE_SHARE = 0.25
"""The largest share of the deadline that is kept for the answer."""

NOT_RECORDED = ToolCallError("internal", "The call couldn't be recorded, so it wasn't made.")

DUPLICATE_NOTE = "The same call was made before; this is what became of it."


class RunToCompletion(Protocol):
    """Runs a call to its end, even where its caller is cancelled."""

    async def __call__(self, work: Callable[[], Awaitable[ToolResult]]) -> ToolResult:
        """Return the result."""
        ...


async def record_nothing(_: ToolResult) -> None:
    """Record nothing."""


def _interrupted_result(call: ToolCall) -> ToolResult:
    """Return the result to store before a write, for the case that the process ends during it."""
    error = ToolCallError("cancelled", "The server ended while this call was made.")
    error.hint = CHECK_HINT
    return call.result(error=error, effect="unknown")


def _has_wrong_arguments(result: ToolResult) -> bool:
    return result.error is not None and result.error.kind == "invalid_arguments"


@dataclass(eq=False)
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
            self.policy.answer_reserve, ANSWER_RESERVE_SHARE * max(0.0, self.deadline.remaining())
        )

    def begin_turn(self) -> bool:
        """Count a turn of the model, and return whether it may call tools."""
        self.steps += 1
        telemetry.REPAIR_TURNS.inc(int(self._repairs))
        if self.steps >= self.policy.max_steps:
            self._stop("max_steps")
        if self._started and self._started >= self._call_limit():
            self._stop("max_tool_calls")
        if self.deadline.remaining() <= self.reserve:
            self._stop("deadline")
        return not self.stopped_by

    async def execute(
        self, calls: Sequence[ToolCall], approved: frozenset[str] = frozenset()
    ) -> list[ToolResult]:
        """Run the calls of one turn; return their results in the order of the calls.

        `approved` are the ids of calls that a person has approved.
        """
        results: dict[int, ToolResult] = {}
        slots = anyio.CapacityLimiter(self.policy.max_parallel)
        first_calls: dict[tuple[str, str], anyio.Event] = {}

        async def run_one(index: int, call: ToolCall) -> None:
            key = call.dedup_key
            finished = first_calls.get(key)
            if finished:
                await finished.wait()  # the same call, twice in one turn: the first answers both
            else:
                first_calls[key] = finished = anyio.Event()
            async with slots:
                try:
                    results[index] = await self._run_call(call, call.id in approved)
                finally:
                    finished.set()

        async with anyio.create_task_group() as tasks:
            for index, call in enumerate(map(self.parse, calls)):
                tasks.start_soon(run_one, index, call)
        ordered = [results[index] for index in range(len(calls))]
        self.executed += ordered
        self._update_limits(ordered)
        return ordered

    async def _run_call(self, call: ToolCall, approved: bool) -> ToolResult:
        key = call.dedup_key
        self._identical[key] += 1
        if self._identical[key] > self.policy.max_identical_calls:
            self._stop("identical_calls")
        earlier = self.memory.get(key)
        if earlier and (earlier.ok or earlier.effect == "unknown"):
            return replace(earlier, call_id=call.id, note=DUPLICATE_NOTE, attempts=0, seconds=0.0)
        refusal = self._check_limits(call)
        if refusal:
            return self._refused_result(call, refusal)
        self._started += 1
        tool = self.tools[call.name]
        context = CallContext(
            self.deadline.minus(self.reserve),
            self.principal,
            self._idempotency_key(call),
            approved,
            repairs=self._last_arguments_were_wrong(call.name),
        )

        async def work() -> ToolResult:
            ended = anyio.Event()
            self._unfinished.add(ended)
            try:
                return await self._call_and_record(tool, call, context)
            finally:
                self._unfinished.discard(ended)
                ended.set()

        try:
            return await (self.finish(work) if tool.survives_disconnect else work())
        except ToolCallError as error:  # the server is shutting down
            effect: WriteEffect = "unknown" if tool.has_side_effects else "none"
            result = call.result(error=error, effect=effect)
            count_call(result, tool.labels)
            return result

    async def _call_and_record(
        self, tool: ServerTool, call: ToolCall, context: CallContext
    ) -> ToolResult:
        """Call a tool and store its result; a write isn't started unless its start was stored."""
        result = call.result(error=NOT_RECORDED)
        try:
            if tool.has_side_effects:
                await self.record(_interrupted_result(call))
            result = self.memory[call.dedup_key] = await tool.call(call, context)
            await self.record(result)
        except Exception as error:  # noqa: BLE001 - the store's: it fails this call alone
            log_unexpected_error(telemetry.UNRECORDED_LINE, error, tool=call.name)
        return result

    async def join(self) -> None:
        """Wait until no call runs any more, including writes that outlive their client."""
        while self._unfinished:
            await next(iter(self._unfinished)).wait()

    def _check_limits(self, call: ToolCall) -> ToolCallError | None:
        tool = self.tools.get(call.name)
        if tool is None:
            return ToolCallError("unknown_tool", f"There is no tool '{call.name[:64]}'.")
        if self._started >= self._call_limit():
            self._stop("max_tool_calls")
            return ToolCallError("not_allowed", "No more tool calls are allowed in this request.")
        earlier = (*self.executed, *self.memory.values())
        finished = {result.tool for result in earlier if result.ok and result.fallback != "value"}
        missing = [name for name in tool.entry.requires if name not in finished | self.done_before]
        if missing:
            message = f"'{missing[0]}' has to succeed first."
            return ToolCallError(
                "precondition_failed", message, hint=f"Call '{missing[0]}' before."
            )
        return None

    def _refused_result(self, call: ToolCall, error: ToolCallError) -> ToolResult:
        """Return the result of a call that isn't made."""
        result = call.result(error=error)
        tool = self.tools.get(call.name)
        count_call(result, tool.labels if tool else UNKNOWN_TOOL)
        return result

    def _last_arguments_were_wrong(self, name: str) -> bool:
        last = next((result for result in reversed(self.executed) if result.tool == name), None)
        return last is not None and _has_wrong_arguments(last)

    def _call_limit(self) -> int:
        limit = self.policy.max_tool_calls
        return limit if self.max_tool_calls is None else min(limit, self.max_tool_calls)

    def _update_limits(self, results: Sequence[ToolResult]) -> None:
        self._repairs = any(_has_wrong_arguments(result) for result in results)
        failed = bool(results) and not any(result.ok for result in results)
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
        """Return the tool and the canonical arguments, which equal calls share."""
        return self.parse(call).dedup_key

    def _idempotency_key(self, call: ToolCall) -> str:
        """Return the key that an equal call of the same request has when the request is retried."""
        name, arguments = call.dedup_key
        return hmac.new(
            self.id.encode(), f"{name}\n{arguments}".encode(errors="replace"), hashlib.sha256
        ).hexdigest()

    def summary(self) -> dict[str, Any]:
        """Return the `tool_runtime` object of the reply's usage."""
        partial = any(not result.ok or result.partial for result in self.executed)
        return {
            "steps": self.steps,
            "tool_calls": self._started,
            "partial": partial,
            "stopped_by": self.stopped_by or None,
        }
