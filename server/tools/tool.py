"""One tool and the layers around its executor, outermost first.

arguments → approval → cache → the tool's deadline → bulkhead → retries, hedges → circuit breaker →
rate limit → attempt timeout → executor → result schema; after a failure: verification, fallbacks.
"""

import time
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any

from opentelemetry import trace

from falsework.server.observability import telemetry
from falsework.server.python_worker import UNHANDLED_EXCEPTION
from falsework.server.tools.call_metrics import MetricLabels, log_unexpected_error, observe_call
from falsework.server.tools.config import (
    NO_PARAMETERS,
    WRITE_EFFECTS,
    EffectClass,
    ToolConfig,
    effect_defaults,
    evaluate,
)
from falsework.server.tools.errors import (
    CHECK_HINT,
    ToolCallError,
    WriteEffect,
    is_ambiguous,
)
from falsework.server.tools.executors import Executor, ToolDescription
from falsework.server.tools.fallbacks import FallbackChain
from falsework.server.tools.resilience import Bulkhead, ResultCache, Upstream
from falsework.server.tools.results import ToolResult, truncate
from falsework.server.tools.retries import MIN_ATTEMPT_SECONDS, CallState, Retrier
from falsework.server.tools.services import ToolServices
from falsework.server.tools.tool_call import CallContext, ParsedArguments, ToolCall
from falsework.server.tools.tool_schemas import ToolSchemas
from falsework.server.tools.validation import check_json
from falsework.server.tools.write_verification import verify_write
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
        services: ToolServices,
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
        self._fallbacks = FallbackChain(self.entry, self.label, tools, self._cached, self._truncate)
        self._services = services
        self._schemas = ToolSchemas(services.checker)
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
        upstream = ToolDescription() if is_complete else await self._describe()
        self.description = entry.description or upstream.description
        self.parameters = entry.parameters or upstream.parameters or dict(NO_PARAMETERS)
        result_schema = entry.result_schema or upstream.result_schema
        try:
            self._schemas = ToolSchemas(
                self._services.checker,
                dict(self.parameters),
                result_schema,
                trusted=entry.kind != "mcp" or bool(entry.parameters),
            )
        except ValueError as error:
            message = f"A schema of the tool '{self.name}' isn't JSON Schema, complete in itself."
            raise ToolCallError("bad_response", message) from error
        self._loaded = True

    async def _describe(self) -> ToolDescription:
        redactor = self._services.redactor
        try:
            description = await self.executor.describe()
        except ToolCallError as error:
            raise redactor.redact_error(error) from error.__cause__
        return ToolDescription(
            redactor.redact_text(description.description),
            redactor.redact(description.parameters),
            redactor.redact(description.result_schema),
        )

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
            try:
                value = await self._retrier.run(arguments, state)
            except ToolCallError as error:
                raise self._services.redactor.redact_error(error) from error.__cause__
        size = check_json(value, self.entry.limits.max_json_depth)
        value = self._services.redactor.redact(value)
        await self._schemas.check_result(value, size)
        return value

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
        return await self._fallbacks.run(failed, context)

    async def _verify(
        self, call: ToolCall, failed: ToolResult, context: CallContext, state: CallState
    ) -> ToolResult:
        assert call.parsed is not None, "a call is parsed before it is made"
        context = replace(context, approved=True, verifying=True)

        def call_tool(name: str, text: str) -> Awaitable[ToolResult]:
            return self._tools[name].call(ToolCall(call.id, name, text), context)

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
