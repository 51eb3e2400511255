"""One tool and the layers round it, outermost first.

arguments checked → approval → cache → the tool's deadline → bulkhead → retries, hedges → breaker →
rate limit → attempt timeout → executor → result checked; where that fails: verify, then fallbacks.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry import trace

from falsework.server.observability import telemetry
from falsework.server.tools.call_metrics import MetricLabels, observe_call
from falsework.server.tools.config.expressions import evaluate
from falsework.server.tools.config.policies import (
    WRITE_EFFECTS,
    EffectClass,
    FallbackPolicy,
    effect_defaults,
)
from falsework.server.tools.config.schema import NO_PARAMETERS, ToolConfig
from falsework.server.tools.deadline import Deadline
from falsework.server.tools.errors import (
    UNHANDLED_EXCEPTION,
    ToolCallError,
    WriteEffect,
    is_ambiguous,
)
from falsework.server.tools.executors.base import Executor, ToolDescription
from falsework.server.tools.resilience.bulkhead import Bulkhead
from falsework.server.tools.resilience.result_cache import ResultCache
from falsework.server.tools.resilience.upstream import Upstream
from falsework.server.tools.results import ToolResult, canonical_json
from falsework.server.tools.retries import MIN_ATTEMPT_SECONDS, CallState, Retrier
from falsework.server.tools.unexpected_errors import log_unexpected_error
from falsework.server.tools.validation import (
    compile_schema,
    parse_json,
    validate_result,
    validation_errors,
)
from falsework.server.tools.write_verification import CallTool, verify_write

Json = dict[str, Any]

VERIFY_RESERVE = 0.25
"""The part of a tool's deadline that is kept from it for a verification or another tool."""

CHECK_HINT = "Check what became of it before doing it again."


@dataclass(frozen=True)
class ParsedArguments:
    """The arguments of a call, parsed and checked against the tool's schema.

    `canonical` is the JSON text that equal calls share. Where the arguments are wrong, `error` says
    why, and `canonical` is the model's own text.
    """

    value: Json
    canonical: str
    error: ToolCallError | None = None


@dataclass(frozen=True)
class ToolCall:
    """A call that the model made; `arguments` is its JSON text.

    `parsed` is set by `ToolRun.parse`, once, and travels with the call.
    """

    id: str
    name: str
    arguments: str
    parsed: ParsedArguments | None = field(default=None, compare=False)

    @property
    def dedup_key(self) -> tuple[str, str]:
        """What equal calls have in common: the tool and the canonical arguments."""
        return (self.name, self.parsed.canonical if self.parsed else self.arguments)

    def result(self, **fields: Any) -> ToolResult:
        """Return the result of this call, with these fields."""
        name, canonical = self.dedup_key
        return ToolResult(self.id, name, self.arguments, canonical, **fields)


@dataclass(frozen=True)
class CallContext:
    """What a call is made under: who asks, until when, and as which call of which run."""

    deadline: Deadline
    principal: str = ""
    key: str | None = None
    approved: bool = False
    verifying: bool = False
    """Whether the result decides what became of a write: asked for anew, by no other, uncut."""
    repairs: bool = False
    """Whether the model got this tool's arguments wrong just before."""


class ServerTool:
    """A tool that the server runs."""

    def __init__(  # noqa: PLR0913 - here the parts of a tool meet
        self,
        entry: ToolConfig,
        effect: EffectClass,
        executor: Executor,
        upstream: Upstream,
        others: "Mapping[str, ServerTool]",
        label: str | None = None,
    ) -> None:
        """`others` are all tools by name, `label` what metrics call it unless its name."""
        self.entry = entry.model_copy(update=effect_defaults(entry, effect))
        self.name = entry.name
        self.label = entry.name if label is None else label
        self.kind = entry.kind
        self.executor = executor
        self.upstream = upstream
        self.bulkhead = Bulkhead(entry.bulkhead)
        self.description = entry.description or ""
        self.parameters: Mapping[str, Any] | None = entry.parameters
        self._others = others
        self._cache = ResultCache(time.monotonic)
        self._attempts = Retrier(self.label, self.entry, executor, upstream)
        self._check_result: Any = None
        self._check_arguments: Any = None

    @property
    def labels(self) -> MetricLabels:
        """What metrics call it."""
        return MetricLabels(self.label, self.kind, self.entry.effect or "none")

    @property
    def has_side_effects(self) -> bool:
        """Whether it has side effects."""
        return self.entry.effect in WRITE_EFFECTS

    @property
    def survives_disconnect(self) -> bool:
        """Whether a call goes on when the client has left."""
        return self.entry.on_cancel == "finish"

    async def load_description(self) -> None:
        """Learn what the file doesn't say from the upstream; raise a Fault where that fails."""
        if self._check_arguments is not None:
            return
        entry = self.entry
        complete = entry.kind == "http" or (entry.description and entry.parameters)
        said = ToolDescription() if complete else await self.executor.describe()
        self.description = entry.description or said.description
        self.parameters = entry.parameters or said.parameters or dict(NO_PARAMETERS)
        result_schema = entry.result_schema or said.result_schema
        try:
            self._check_result = compile_schema(result_schema) if result_schema else None
            self._check_arguments = compile_schema(self.parameters)
        except ValueError as fault:
            message = f"A schema of the tool '{self.name}' isn't JSON Schema, complete in itself."
            raise ToolCallError("bad_response", message) from fault

    def parse_arguments(self, arguments: str) -> Json:
        """Return the arguments of a call; raise a Fault that points at each that is wrong."""
        try:
            read = parse_json(arguments.encode() or b"{}")
        except ValueError as fault:
            raise ToolCallError("invalid_arguments", "The arguments aren't valid JSON.") from fault
        if wrong := validation_errors(self._check_arguments, read):
            message = "The arguments don't satisfy the tool's schema."
            raise ToolCallError("invalid_arguments", message, details=wrong)
        checked: Json = read
        return checked

    def parse(self, text: str) -> ParsedArguments:
        """Return the arguments of a call, parsed and checked; nothing is raised."""
        try:
            value = self.parse_arguments(text)
        except ToolCallError as error:
            return ParsedArguments({}, text, error)
        return ParsedArguments(value, canonical_json(value))

    def requires_approval(self, arguments: Json) -> bool:
        """Tell whether a person has to agree to this call first."""
        approval = self.entry.approval
        if approval is None:
            return False
        return approval.when is None or evaluate(approval.when, args=arguments) is not False

    async def call(self, asked: ToolCall, under: CallContext) -> ToolResult:
        """Run a call through all layers; whatever happens to it is told by its outcome."""
        if asked.parsed is None:
            asked = replace(asked, parsed=self.parse(asked.arguments))
        with observe_call(asked.result(), self.labels) as ending:
            ending.outcome = await self._ended(asked, under)
        return ending.outcome

    async def _ended(self, asked: ToolCall, under: CallContext) -> ToolResult:
        """Return how a call ended; what nobody foresaw costs this call alone."""
        hurried = under.deadline.remaining() < self.entry.deadline
        under = replace(under, deadline=under.deadline.within(self.entry.deadline))
        effort = self._effort(asked, under, hurried=hurried)
        try:
            return await self._called(asked, under, effort)
        except Exception as fault:  # noqa: BLE001 - the boundary between calls
            log_unexpected_error(telemetry.BROKEN_LINE, fault, tool=self.name)
            effect = self._effect(
                effort.doubts | ({UNHANDLED_EXCEPTION} if effort.attempts else set())
            )
            unforeseen = ToolCallError("internal", "The call failed inside the server.")
            unforeseen.hint = CHECK_HINT if effect == "unknown" else ""
            return asked.result(fault=unforeseen, effect=effect, attempts=effort.attempts)

    def _effort(self, asked: ToolCall, under: CallContext, *, hurried: bool) -> CallState:
        relies = self.entry.verify or any(each.tool for each in self.entry.fallback)
        reserve = VERIFY_RESERVE * max(0.0, under.deadline.remaining()) if relies else 0.0
        key = under.key if self.entry.idempotency else None
        deadline = under.deadline.minus(reserve)
        return CallState(deadline, asked.id, key, hurried=hurried)

    async def _called(self, asked: ToolCall, under: CallContext, effort: CallState) -> ToolResult:
        plain, parsed = asked.result(), asked.parsed
        assert parsed is not None, "a call is parsed before it is made"
        if parsed.error:
            self._judged("failed")
            return replace(plain, fault=parsed.error)
        self._judged("repaired" if under.repairs else "valid")
        arguments = parsed.value
        if self.requires_approval(arguments) and not under.approved:
            message = "A person has to approve this call first."
            return replace(plain, fault=ToolCallError("approval_required", message))
        key = (under.principal, parsed.canonical)
        if not under.verifying and (kept := self._kept(key, self.entry.cache.ttl)):
            value, cut = self._cut(kept[0])
            return replace(plain, value=value, truncated=cut)
        try:
            value = await self._run(arguments, effort)
        except ToolCallError as fault:
            return await self._instead(asked, under, effort, fault)
        cache = self.entry.cache
        if not self.has_side_effects and (cache.ttl or cache.stale_if_error):
            self._cache.put(key, value)
        value, cut = (value, False) if under.verifying else self._cut(value)
        return replace(
            plain,
            value=value,
            truncated=cut,
            attempts=effort.attempts,
            backoff=effort.backoff,
            queued=effort.queued,
            effect="applied" if self.has_side_effects else "none",
        )

    def _judged(self, arguments: str) -> None:
        telemetry.ARGUMENT_VALIDATION.labels(self.label, arguments).inc()
        if arguments == "repaired":
            trace.get_current_span().add_event(telemetry.REPAIR)

    async def _run(self, arguments: Json, effort: CallState) -> Any:
        if effort.deadline.remaining() < MIN_ATTEMPT_SECONDS:
            raise ToolCallError("deadline_exhausted", "There is no time left for this call.")
        waited = time.monotonic()
        async with self.bulkhead.acquire(effort.deadline):
            effort.queued = time.monotonic() - waited
            telemetry.BULKHEAD_WAIT.labels(self.label).observe(effort.queued)
            value = await self._attempts.run(arguments, effort)
        return validate_result(value, self._check_result, self.entry.limits.max_json_depth)

    def _kept(self, key: tuple[str, str], oldest: float, how: str = "hit") -> tuple[Any] | None:
        if oldest <= 0 or self.has_side_effects:
            return None
        kept = self._cache.get(key, oldest)
        if kept or how == "hit":  # a fallback's look is the second one of its call
            telemetry.RESULT_CACHE.labels(self.label, how if kept else "miss").inc()
        return kept

    def _cut(self, value: Any) -> tuple[Any, bool]:
        """Return what the model is given of a result, and whether something was left out."""
        longest = self.entry.limits.max_result_chars
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(text) <= longest:
            return value, False
        telemetry.TRUNCATED_RESULTS.labels(self.label).inc()
        return f"{text[:longest]}… [{len(text) - longest} more characters were left out]", True

    async def _instead(
        self,
        asked: ToolCall,
        under: CallContext,
        effort: CallState,
        fault: ToolCallError,
    ) -> ToolResult:
        """Return what answers when the tool failed: verification, a fallback, the fault itself."""
        if fault.sent and is_ambiguous(fault):
            effort.doubts.add(fault.reason)
        effect = self._effect(effort.doubts)
        if fault.kind == "overloaded":
            telemetry.BULKHEAD_REJECTIONS.labels(self.label).inc()
        failed = asked.result(
            fault=fault,
            effect=effect,
            attempts=effort.attempts,
            backoff=effort.backoff,
            queued=effort.queued,
        )
        assert asked.parsed is not None, "a call is parsed before it is made"
        arguments = asked.parsed.value
        under = replace(under, key=None)
        if effect == "unknown":
            fault.hint = CHECK_HINT
            ask = self._asking(asked.id, replace(under, approved=True, verifying=True))
            failed = await verify_write(self.entry.verify, failed, arguments, effort.doubts, ask)
            telemetry.AMBIGUOUS_WRITES.labels(self.label, failed.effect).inc()
        if failed.ok or failed.effect == "unknown" or under.verifying:
            return failed
        for fallback in self.entry.fallback:
            if fault.kind in fallback.when:
                answered = await self._fallen_back(fallback, failed, under)
                if answered:
                    return answered
        return failed

    def _effect(self, doubts: set[str]) -> WriteEffect:
        if not self.has_side_effects:
            return "none"
        return "unknown" if doubts else "not_applied"

    def _asking(self, call_id: str, under: CallContext) -> CallTool:
        return lambda name, text: self._others[name].call(ToolCall(call_id, name, text), under)

    async def _fallen_back(
        self, fallback: FallbackPolicy, failed: ToolResult, under: CallContext
    ) -> ToolResult | None:
        if fallback.tool is not None:
            said = await self._asking(failed.call_id, under)(fallback.tool, failed.canonical)
            return self._by_another(fallback, failed, said)
        if fallback.stale:
            oldest = self.entry.cache.stale_if_error
            kept = self._kept((under.principal, failed.canonical), oldest, "stale")
            return self._degraded(failed, kept[0], fallback, "stale") if kept else None
        return self._degraded(failed, fallback.value, fallback, "value")

    def _by_another(
        self, by: FallbackPolicy, failed: ToolResult, said: ToolResult
    ) -> ToolResult | None:
        other = self._others[by.tool or ""]
        failed = replace(failed, effect=said.effect) if other.has_side_effects else failed
        if said.ok:
            return self._degraded(failed, said.value, by, other.name)
        return replace(failed, fault=said.fault) if said.effect == "unknown" else None

    def _degraded(self, failed: ToolResult, value: Any, by: FallbackPolicy, to: str) -> ToolResult:
        telemetry.FALLBACKS.labels(self.label, to).inc()
        trace.get_current_span().add_event(telemetry.FALLBACK, {"to": to})
        value, cut = self._cut(value)
        return replace(failed, fault=None, value=value, truncated=cut, degraded=True, fallback=to,
                       partial=by.partial)  # fmt: skip
