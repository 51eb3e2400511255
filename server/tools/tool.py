"""One tool and the layers around its executor, outermost first.

arguments → approval → cache → the tool's deadline → bulkhead → retries, hedges → circuit breaker →
rate limit → attempt timeout → executor → result schema; after a failure: verification, fallbacks.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from opentelemetry import trace

from falsework.server.observability import telemetry
from falsework.server.tools.call_metrics import MetricLabels, log_unexpected_error, observe_call
from falsework.server.tools.config.expressions import evaluate
from falsework.server.tools.config.policies import (
    WRITE_EFFECTS,
    EffectClass,
    FallbackPolicy,
    effect_defaults,
)
from falsework.server.tools.config.schema import NO_PARAMETERS, ToolConfig
from falsework.server.tools.errors import (
    CHECK_HINT,
    UNHANDLED_EXCEPTION,
    ToolCallError,
    WriteEffect,
    is_ambiguous,
)
from falsework.server.tools.executors.base import Executor, ToolDescription
from falsework.server.tools.resilience.bulkhead import Bulkhead
from falsework.server.tools.resilience.result_cache import ResultCache
from falsework.server.tools.resilience.upstream import Upstream
from falsework.server.tools.results import ToolResult, truncate
from falsework.server.tools.retries import MIN_ATTEMPT_SECONDS, CallState, Retrier
from falsework.server.tools.tool_call import CallContext, ParsedArguments, ToolCall
from falsework.server.tools.tool_schemas import ToolSchemas
from falsework.server.tools.write_verification import CallTool, verify_write
from falsework.server.types import Json

RECOVERY_RESERVE_SHARE = 0.25
"""The share of a tool's deadline that is kept for a verification or a fallback tool."""


class ServerTool:
    """A tool that the server runs."""

    def __init__(  # noqa: PLR0913 - here the parts of a tool meet
        self,
        entry: ToolConfig,
        effect: EffectClass,
        executor: Executor,
        upstream: Upstream,
        tools: "Mapping[str, ServerTool]",
        label: str | None = None,
    ) -> None:
        """`tools` are all tools by name; `label` is used in metrics instead of the name."""
        self.entry = entry.model_copy(update=effect_defaults(entry, effect))
        self.name = entry.name
        self.label = entry.name if label is None else label
        self.kind = entry.kind
        self.executor = executor
        self.upstream = upstream
        self.bulkhead = Bulkhead(entry.bulkhead)
        self.description = entry.description or ""
        self.parameters: Mapping[str, Any] | None = entry.parameters
        self._tools = tools
        self._cache = ResultCache(upstream.clock)
        self._retrier = Retrier(self.label, self.entry, executor, upstream)
        self._schemas = ToolSchemas()
        self._loaded = False

    @property
    def labels(self) -> MetricLabels:
        """The label values of its metrics."""
        return MetricLabels(self.label, self.kind, self.entry.effect or "none")

    @property
    def has_side_effects(self) -> bool:
        """Whether a call may change something."""
        return self.entry.effect in WRITE_EFFECTS

    @property
    def survives_disconnect(self) -> bool:
        """Whether a call goes on when the client has left."""
        return self.entry.on_cancel == "finish"

    async def load_description(self) -> None:
        """Load description and schemas that the tools file leaves out from the upstream.

        Raises a ToolCallError where the upstream can't be asked, or a schema is invalid.
        """
        if self._loaded:
            return
        entry = self.entry
        is_complete = entry.kind == "http" or (entry.description and entry.parameters)
        upstream = ToolDescription() if is_complete else await self.executor.describe()
        self.description = entry.description or upstream.description
        self.parameters = entry.parameters or upstream.parameters or dict(NO_PARAMETERS)
        result_schema = entry.result_schema or upstream.result_schema
        try:
            self._schemas = ToolSchemas(self.parameters, result_schema)
        except ValueError as error:
            message = f"A schema of the tool '{self.name}' isn't JSON Schema, complete in itself."
            raise ToolCallError("bad_response", message) from error
        self._loaded = True

    def parse_arguments(self, text: str) -> Json:
        """Return the arguments of a call; raise a ToolCallError that lists violations."""
        return self._schemas.parse_arguments(text)

    def parse(self, text: str) -> ParsedArguments:
        """Return the parsed and checked arguments of a call, or the error that they have."""
        return self._schemas.parse(text)

    def requires_approval(self, arguments: Json) -> bool:
        """Tell whether a person has to approve a call with these arguments first."""
        approval = self.entry.approval
        if approval is None:
            return False
        return approval.when is None or evaluate(approval.when, args=arguments) is not False

    async def call(self, call: ToolCall, context: CallContext) -> ToolResult:
        """Run a call through all layers; errors are part of the result."""
        if call.parsed is None:
            call = replace(call, parsed=self.parse(call.arguments))
        with observe_call(call.result(), self.labels) as holder:
            holder.result = await self._run_guarded(call, context)
        return holder.result

    async def _run_guarded(self, call: ToolCall, context: CallContext) -> ToolResult:
        """Run the layers; an unexpected exception fails this call alone."""
        shortened = context.deadline.remaining() < self.entry.deadline
        context = replace(context, deadline=context.deadline.within(self.entry.deadline))
        state = self._call_state(call, context, shortened=shortened)
        try:
            return await self._run_layers(call, context, state)
        except Exception as error:  # noqa: BLE001 - the boundary between calls
            log_unexpected_error(telemetry.BROKEN_LINE, error, tool=self.name)
            if state.attempts:
                state.ambiguous.add(UNHANDLED_EXCEPTION)
            effect = self._effect(state)
            internal = ToolCallError("internal", "The call failed inside the server.")
            internal.hint = CHECK_HINT if effect == "unknown" else ""
            return call.result(error=internal, effect=effect, attempts=state.attempts)

    def _call_state(self, call: ToolCall, context: CallContext, *, shortened: bool) -> CallState:
        recovers = self.entry.verify or any(fallback.tool for fallback in self.entry.fallback)
        share = RECOVERY_RESERVE_SHARE if recovers else 0.0
        deadline = context.deadline.minus(share * max(0.0, context.deadline.remaining()))
        key = context.key if self.entry.idempotency else None
        return CallState(deadline, call.id, key, shortened=shortened)

    async def _run_layers(
        self, call: ToolCall, context: CallContext, state: CallState
    ) -> ToolResult:
        parsed = call.parsed
        assert parsed is not None, "a call is parsed before it is made"
        if parsed.error:
            self._count_validation("failed")
            return call.result(error=parsed.error)
        self._count_validation("repaired" if context.repairs else "valid")
        if self.requires_approval(parsed.value) and not context.approved:
            message = "A person has to approve this call first."
            return call.result(error=ToolCallError("approval_required", message))
        key = (context.principal, parsed.canonical)
        if not context.verifying and (cached := self._cached(key, self.entry.cache.ttl)):
            value, truncated = self._truncate(cached[0])
            return call.result(value=value, truncated=truncated)
        try:
            value = await self._execute(parsed.value, state)
        except ToolCallError as error:
            return await self._recover(call, context, state, error)
        cache = self.entry.cache
        if not self.has_side_effects and (cache.ttl or cache.stale_if_error):
            self._cache.put(key, value)
        value, truncated = (value, False) if context.verifying else self._truncate(value)
        return call.result(
            value=value,
            truncated=truncated,
            attempts=state.attempts,
            backoff=state.backoff,
            queued=state.queued,
            effect="applied" if self.has_side_effects else "none",
        )

    def _count_validation(self, outcome: str) -> None:
        telemetry.ARGUMENT_VALIDATION.labels(self.label, outcome).inc()
        if outcome == "repaired":
            trace.get_current_span().add_event(telemetry.REPAIR)

    async def _execute(self, arguments: Json, state: CallState) -> Any:
        if state.deadline.remaining() < MIN_ATTEMPT_SECONDS:
            raise ToolCallError("deadline_exhausted", "There is no time left for this call.")
        began = time.monotonic()
        async with self.bulkhead.acquire(state.deadline):
            state.queued = time.monotonic() - began
            telemetry.BULKHEAD_WAIT.labels(self.label).observe(state.queued)
            value = await self._retrier.run(arguments, state)
        return self._schemas.check_result(value, self.entry.limits.max_json_depth)

    def _cached(
        self, key: tuple[str, str], max_age: float, outcome: str = "hit"
    ) -> tuple[Any] | None:
        if max_age <= 0 or self.has_side_effects:
            return None
        cached = self._cache.get(key, max_age)
        if cached or outcome == "hit":  # a fallback looks up a second time, which is no second miss
            telemetry.RESULT_CACHE.labels(self.label, outcome if cached else "miss").inc()
        return cached

    def _truncate(self, value: Any) -> tuple[Any, bool]:
        """Return a value as the model reads it, and whether it was truncated."""
        text, is_truncated = truncate(value, self.entry.limits.max_result_chars)
        telemetry.TRUNCATED_RESULTS.labels(self.label).inc(int(is_truncated))
        return text, is_truncated

    async def _recover(
        self,
        call: ToolCall,
        context: CallContext,
        state: CallState,
        error: ToolCallError,
    ) -> ToolResult:
        """Return the result after a failure: of a verification, of a fallback, or the error."""
        if error.sent and is_ambiguous(error):
            state.ambiguous.add(error.reason)
        effect = self._effect(state)
        if error.kind == "overloaded":
            telemetry.BULKHEAD_REJECTIONS.labels(self.label).inc()
        failed = call.result(
            error=error,
            effect=effect,
            attempts=state.attempts,
            backoff=state.backoff,
            queued=state.queued,
        )
        context = replace(context, key=None)
        if effect == "unknown":
            error.hint = CHECK_HINT
            failed = await self._verify(call, failed, context, state)
        if failed.ok or failed.effect == "unknown" or context.verifying:
            return failed
        for fallback in self.entry.fallback:
            if error.kind in fallback.when:
                result = await self._fall_back(fallback, failed, context)
                if result:
                    return result
        return failed

    async def _verify(
        self, call: ToolCall, failed: ToolResult, context: CallContext, state: CallState
    ) -> ToolResult:
        assert call.parsed is not None, "a call is parsed before it is made"
        call_tool = self._tool_caller(call.id, replace(context, approved=True, verifying=True))
        arguments = call.parsed.value
        result = await verify_write(
            self.entry.verify, failed, arguments, state.ambiguous, call_tool
        )
        telemetry.AMBIGUOUS_WRITES.labels(self.label, result.effect).inc()
        return result

    def _effect(self, state: CallState) -> WriteEffect:
        if not self.has_side_effects:
            return "none"
        return "unknown" if state.ambiguous else "not_applied"

    def _tool_caller(self, call_id: str, context: CallContext) -> CallTool:
        return lambda name, text: self._tools[name].call(ToolCall(call_id, name, text), context)

    async def _fall_back(
        self, fallback: FallbackPolicy, failed: ToolResult, context: CallContext
    ) -> ToolResult | None:
        if fallback.tool is not None:
            call_tool = self._tool_caller(failed.call_id, context)
            result = await call_tool(fallback.tool, failed.canonical)
            return self._from_fallback_tool(fallback, failed, result)
        if fallback.stale:
            max_age = self.entry.cache.stale_if_error
            cached = self._cached((context.principal, failed.canonical), max_age, "stale")
            return self._degraded_result(failed, cached[0], fallback, "stale") if cached else None
        return self._degraded_result(failed, fallback.value, fallback, "value")

    def _from_fallback_tool(
        self, fallback: FallbackPolicy, failed: ToolResult, result: ToolResult
    ) -> ToolResult | None:
        tool = self._tools[fallback.tool or ""]
        failed = replace(failed, effect=result.effect) if tool.has_side_effects else failed
        if result.ok:
            return self._degraded_result(failed, result.value, fallback, tool.name)
        return replace(failed, error=result.error) if result.effect == "unknown" else None

    def _degraded_result(
        self, failed: ToolResult, value: Any, fallback: FallbackPolicy, to: str
    ) -> ToolResult:
        telemetry.FALLBACKS.labels(self.label, to).inc()
        trace.get_current_span().add_event(telemetry.FALLBACK, {"to": to})
        value, truncated = self._truncate(value)
        return replace(
            failed,
            error=None,
            value=value,
            truncated=truncated,
            degraded=True,
            fallback=to,
            partial=fallback.partial,
        )
