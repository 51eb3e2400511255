"""One tool and the layers round it, outermost first.

arguments checked → approval → cache → the tool's deadline → bulkhead → retries, hedges → breaker →
rate limit → attempt timeout → executor → result checked; where that fails: verify, then fallbacks.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from falsework.runtime import telemetry
from falsework.runtime.attempts import SAID_NO, Attempts, Effort
from falsework.runtime.bulkheads import Bulkhead
from falsework.runtime.caches import ResultCache
from falsework.runtime.checks import depth, details, validator
from falsework.runtime.conditions import filled, holds
from falsework.runtime.deadlines import Deadline
from falsework.runtime.entries import NO_PARAMETERS, ToolEntry
from falsework.runtime.executors.base import Described, Executor
from falsework.runtime.faults import BREAKING, Effect, Fault
from falsework.runtime.outcomes import Outcome, canonical
from falsework.runtime.policies import WRITING, EffectClass, Fallback
from falsework.runtime.upstreams import Upstream

Json = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A call that the model made; `arguments` is its JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Circumstances:
    """What a call is made under: who asks, until when, and as which call of which run."""

    deadline: Deadline
    principal: str = ""
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    approved: bool = False


class ServerTool:
    """A tool that the server runs."""

    def __init__(
        self,
        entry: ToolEntry,
        effect: EffectClass,
        executor: Executor,
        upstream: Upstream,
        others: "Mapping[str, ServerTool]",
    ) -> None:
        """`others` are all tools by name, for fallbacks and verification."""
        self.entry = entry.model_copy(update={"effect": effect})
        self.name = entry.name
        self.kind = entry.kind
        self.executor = executor
        self.upstream = upstream
        self.bulkhead = Bulkhead(entry.bulkhead)
        self.description = entry.description or ""
        self.parameters: Mapping[str, Any] | None = entry.parameters
        self._others = others
        self._cache = ResultCache(time.monotonic)
        self._attempts = Attempts(self.name, self.entry, executor, upstream)
        self._check_result: Any = None
        self._check_arguments: Any = None

    @property
    def writes(self) -> bool:
        """Whether it has side effects."""
        return self.entry.effect in WRITING

    @property
    def finishes(self) -> bool:
        """Whether a call goes on when the client has left."""
        on_cancel = self.entry.on_cancel
        return self.writes if on_cancel is None else on_cancel == "finish"

    async def describe(self) -> None:
        """Learn what the file doesn't say from the upstream; raise a Fault where that fails."""
        entry = self.entry
        if self._check_arguments is not None:
            return
        complete = entry.kind == "http" or (entry.description and entry.parameters)
        said = Described() if complete else await self.executor.describe()
        self.description = entry.description or said.description
        self.parameters = entry.parameters or said.parameters or dict(NO_PARAMETERS)
        result_schema = entry.result_schema or said.result_schema
        try:
            self._check_result = validator(result_schema) if result_schema else None
            self._check_arguments = validator(self.parameters)
        except ValueError as fault:
            message = f"A schema of the tool '{self.name}' isn't JSON Schema, complete in itself."
            raise Fault("bad_response", message) from fault

    def read(self, arguments: str) -> Json:
        """Return the arguments of a call; raise a Fault that points at each that is wrong."""
        try:
            read = json.loads(arguments or "{}")
        except ValueError as fault:
            raise Fault("invalid_arguments", "The arguments aren't valid JSON.") from fault
        if wrong := details(self._check_arguments, read):
            message = "The arguments don't satisfy the tool's schema."
            raise Fault("invalid_arguments", message, details=wrong)
        checked: Json = read
        return checked

    def waits_for_approval(self, arguments: Json) -> bool:
        """Tell whether a person has to agree to this call first."""
        approval = self.entry.approval
        if approval is None:
            return False
        return approval.when is None or holds(approval.when, args=arguments)

    def _check_approval(self, arguments: Json, under: Circumstances) -> None:
        if self.waits_for_approval(arguments) and not under.approved:
            raise Fault("approval_required", "A person has to approve this call first.")

    async def call(self, asked: Asked, under: Circumstances) -> Outcome:
        """Run a call through all layers; whatever happens to it is told by its outcome."""
        begun = time.monotonic()
        attributes = {
            telemetry.OPERATION: "execute_tool",
            telemetry.TOOL_NAME: self.name,
            telemetry.TOOL_TYPE: telemetry.EXTENSION,
            telemetry.CALL_ID: asked.id,
        }
        name = telemetry.EXECUTE_TOOL.format(name=self.name)
        with telemetry.TRACER.start_as_current_span(name, attributes=attributes) as span:
            outcome = await self._called(asked, under)
            if outcome.fault:
                span.set_attribute(telemetry.ERROR_TYPE, outcome.fault.kind)
        outcome = replace(outcome, seconds=time.monotonic() - begun)
        self._count(outcome)
        return outcome

    async def _called(self, asked: Asked, under: Circumstances) -> Outcome:
        plain = Outcome(asked.id, self.name, asked.arguments)
        effort = Effort(
            under.deadline.within(self.entry.deadline),
            asked.id,
            under.key if self.entry.idempotency else None,
            dict(under.headers),
        )
        try:
            arguments = self.read(asked.arguments)
            telemetry.ARGUMENTS.labels(self.name, "valid").inc()
            self._check_approval(arguments, under)
        except Fault as fault:
            if fault.kind == "invalid_arguments":
                telemetry.ARGUMENTS.labels(self.name, "failed").inc()
            return replace(plain, fault=fault)
        key = (under.principal, canonical(arguments))
        if kept := self._kept(key, self.entry.cache.ttl):
            return replace(plain, value=kept[0])
        try:
            value = await self._run(arguments, effort)
        except Fault as fault:
            return await self._instead(asked, arguments, under, effort, fault)
        if not self.writes:
            self._cache.put(key, value)
        value, cut = self._cut(value)
        return replace(
            plain,
            value=value,
            truncated=cut,
            attempts=effort.attempts,
            backoff=effort.backoff,
            queued=effort.queued,
            effect="applied" if self.writes else "none",
        )

    async def _run(self, arguments: Json, effort: Effort) -> Any:
        waited = time.monotonic()
        in_flight = telemetry.BULKHEAD_IN_FLIGHT.labels(self.name)
        async with self.bulkhead.place(effort.deadline):
            effort.queued = time.monotonic() - waited
            telemetry.BULKHEAD_WAIT.labels(self.name).observe(effort.queued)
            with in_flight.track_inprogress():
                value = await self._attempts.run(arguments, effort)
        if depth(value) > self.entry.limits.max_json_depth:
            raise Fault("bad_response", "The tool's answer is nested too deeply.", sent=True)
        if wrong := details(self._check_result, value):
            message = "The tool's answer doesn't satisfy its schema."
            raise Fault("bad_response", message, sent=True, details=wrong)
        return value

    def _kept(self, key: tuple[str, str], oldest: float, how: str = "hit") -> tuple[Any] | None:
        if oldest <= 0 or self.writes:
            return None
        kept = self._cache.get(key, oldest)
        telemetry.CACHE.labels(self.name, how if kept else "miss").inc()
        return kept

    def _cut(self, value: Any) -> tuple[Any, bool]:
        """Return what the model is given of a result, and whether something was left out."""
        longest = self.entry.limits.max_result_chars
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(text) <= longest:
            return value, False
        telemetry.TRUNCATED.labels(self.name).inc()
        return f"{text[:longest]}… [{len(text) - longest} more characters were left out]", True

    async def _instead(
        self, asked: Asked, arguments: Json, under: Circumstances, effort: Effort, fault: Fault
    ) -> Outcome:
        """Return what answers when the tool failed: verification, a fallback, the fault itself."""
        effect = self._effect(effort, fault)
        failed = Outcome(asked.id, self.name, asked.arguments, fault=fault, effect=effect,
                         attempts=effort.attempts, backoff=effort.backoff,
                         queued=effort.queued)  # fmt: skip
        if effect == "unknown":
            failed = await self._verified(failed, arguments, under)
            telemetry.AMBIGUOUS.labels(self.name, failed.effect).inc()
        if failed.ok:
            return failed
        for fallback in self.entry.fallback:
            if fault.kind in fallback.when:
                answered = await self._fallen_back(fallback, failed, arguments, under)
                if answered:
                    return answered
        return failed

    def _effect(self, effort: Effort, fault: Fault) -> Effect:
        if not self.writes:
            return "none"
        doubtful = fault.kind in BREAKING or fault.kind in {"bad_response", "too_large"}
        if effort.sent and doubtful and fault.reason not in SAID_NO:
            return "unknown"
        return "not_applied"

    async def _verified(self, failed: Outcome, arguments: Json, under: Circumstances) -> Outcome:
        """Find out by a read what became of a write."""
        verify = self.entry.verify
        if failed.fault is not None:
            failed.fault.hint = "Check what became of it before doing it again."
        if verify is None:
            return failed
        asked = canonical(filled(verify.arguments, arguments))
        read = await self._others[verify.tool].call(
            Asked(failed.call_id, verify.tool, asked), replace(under, key=None, approved=True)
        )
        if not read.ok:
            return failed
        if holds(verify.matches, args=arguments, result=read.value):
            note = "The answer was lost, but a check shows that it was done."
            return replace(failed, fault=None, value=read.value, effect="applied", note=note)
        return replace(failed, effect="not_applied")

    async def _fallen_back(
        self, fallback: Fallback, failed: Outcome, arguments: Json, under: Circumstances
    ) -> Outcome | None:
        if fallback.tool is not None:
            other = self._others[fallback.tool]
            if other.writes and failed.effect == "unknown":
                return None
            said = await other.call(
                Asked(failed.call_id, other.name, canonical(arguments)), replace(under, key=None)
            )
            return self._degraded(failed, said.value, fallback.tool) if said.ok else None
        if fallback.stale:
            oldest = self.entry.cache.stale_if_error
            kept = self._kept((under.principal, canonical(arguments)), oldest, "stale")
            return self._degraded(failed, kept[0], "stale") if kept else None
        return self._degraded(failed, fallback.value, "value")

    def _degraded(self, failed: Outcome, value: Any, to: str) -> Outcome:
        telemetry.FALLBACKS.labels(self.name, to).inc()
        value, cut = self._cut(value)
        return replace(failed, fault=None, value=value, truncated=cut, degraded=True, fallback=to)

    def _count(self, outcome: Outcome) -> None:
        error = outcome.fault.kind if outcome.fault else ""
        how = "error" if error else "degraded" if outcome.degraded else "ok"
        telemetry.TOOL_CALLS.labels(self.name, self.kind, self.entry.effect, how, error).inc()
        telemetry.EXECUTE_SECONDS.labels(self.name, self.kind, error).observe(outcome.seconds)
        if error == "overloaded":
            telemetry.BULKHEAD_REJECTIONS.labels(self.name).inc()
        if error == "blocked_egress":
            telemetry.EGRESS_BLOCKED.labels(self.name).inc()
