"""Policies of a tool: timeouts, retries, limits, fallbacks.

Every field has a default; `defaults:` in the tools file replaces them for all tools.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, model_validator

from falsework.server.tools.config.expressions import Condition
from falsework.server.tools.config.units import Bytes, Seconds
from falsework.server.tools.errors import ErrorType

EffectClass = Literal["pure", "read", "write", "destructive"]
RETRY_REASONS = ("connect", "timeout", "reset", "crash")
RETRYABLE_STATUSES = range(400, 600)
WRITE_EFFECTS: frozenset[str] = frozenset({"write", "destructive"})


class Policy(BaseModel):
    """A part of the tools file: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _check_reason(reason: str | int) -> str | int:
    if reason in RETRY_REASONS or (str(reason).isdigit() and int(reason) in RETRYABLE_STATUSES):
        return reason
    raise ValueError(f"should be one of {', '.join(RETRY_REASONS)}, or a status from 400 on")


RetryReason = Annotated[str | int, AfterValidator(_check_reason)]
Status = Annotated[int, Field(ge=RETRYABLE_STATUSES.start, lt=RETRYABLE_STATUSES.stop)]


class RetryPolicy(Policy):
    """When a failed attempt is made again."""

    max_attempts: int = Field(default=3, ge=1, le=5, description="Attempts, the first included.")
    base: Seconds = Field(default=0.1, description="Pauses: random(0, base * 2^n).")
    cap: Seconds = 2.0
    retry_after_cap: Seconds = Field(default=5.0, description="The longest that is obeyed.")
    retry_on: tuple[RetryReason, ...] = (*RETRY_REASONS, 429, 502, 503, 504)
    not_applied_on: tuple[Status, ...] = Field(
        default=(429,), description="Statuses that mean that a write did nothing."
    )
    pause_cap: Seconds = Field(
        default=60.0, description="The longest that a Retry-After keeps other calls away."
    )
    pause_scope: Literal["tool", "upstream"] = Field(
        default="tool", description="Whose other calls a Retry-After keeps away."
    )


class RetryBudgetPolicy(Policy):
    """Retries per upstream: every call earns `ratio`, every retry costs 1."""

    ratio: float = Field(default=0.2, ge=0, le=1)
    burst: float = Field(default=10, ge=0)


class BreakerPolicy(Policy):
    """When the circuit breaker of an upstream opens, and for how long."""

    enabled: bool = True
    window: Seconds = 30.0
    min_calls: int = Field(default=10, ge=1)
    failure_rate: float = Field(default=0.5, gt=0, le=1)
    slow_call: Seconds | None = Field(
        default=None, description="Slower calls count as slow; by itself none, as tools differ."
    )
    slow_rate: float = Field(default=0.8, gt=0, le=1)
    open_for: Seconds = 5.0
    open_max: Seconds = 60.0
    successes_to_close: int = Field(default=3, ge=1)


class BulkheadPolicy(Policy):
    """How many calls of a tool run at the same time."""

    max_concurrent: int = Field(default=16, ge=1)
    max_queue: int = Field(default=32, ge=0)
    queue_timeout: Seconds = 0.25


class RateLimitPolicy(Policy):
    """How many attempts of a tool are made per period."""

    calls: int = Field(ge=1)
    per: Seconds = 1.0


class HedgePolicy(Policy):
    """A second attempt beside a slow read."""

    after: Literal["p95"] | Seconds = "p95"
    floor: Seconds = 0.2


class CachePolicy(Policy):
    """How long a result may be reused."""

    ttl: Seconds = 0.0
    stale_if_error: Seconds = 0.0


class FallbackPolicy(Policy):
    """A substitute for a failed call: another tool, a cached result, or a constant."""

    tool: str | None = None
    stale: bool = False
    value: Any = None
    partial: bool = Field(default=False, description="Marks the whole reply as partial.")
    when: tuple[ErrorType, ...] = (
        "unavailable",
        "timeout",
        "circuit_open",
        "overloaded",
        "upstream_error",
        "rate_limited",
    )

    @model_validator(mode="after")
    def _check_one_answer(self) -> Self:
        constant = "value" in self.model_fields_set
        if [self.tool is not None, self.stale, constant].count(True) != 1:
            raise ValueError("should be exactly one of tool, stale and value")
        return self


class IdempotencyPolicy(Policy):
    """The upstream honours an idempotency key: calls with the same key are applied once."""

    header: str = "Idempotency-Key"


class VerifyPolicy(Policy):
    """A read that decides whether a write whose answer never came was applied."""

    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    matches: Condition = Field(description="Of `args` and `result`; true where it was applied.")


class ApprovalPolicy(Policy):
    """Calls that a person has to approve; `never` switches that off."""

    when: Condition | None = Field(default=None, description="Of `args`; otherwise always.")

    @model_validator(mode="before")
    @classmethod
    def _expand_never(cls, value: Any) -> Any:
        return {"when": "`false`"} if value == "never" else value


class ResultLimits(Policy):
    """Limits of a result."""

    max_response_bytes: Bytes = ByteSize(256 * 2**10)
    max_result_chars: int = Field(default=8000, ge=16, description="For the model.")
    max_json_depth: int = Field(default=32, ge=1)


class EgressPolicy(Policy):
    """Where a tool may connect to, beside the host of its own URL."""

    allow_hosts: tuple[str, ...] = ()
    deny_private: bool | None = Field(
        default=None, description="Refuse private addresses; by itself unless the URL names one."
    )
    require_tls: bool | None = Field(default=None, description="By itself in public.")


class ToolPolicy(Policy):
    """The policies of a tool of any kind."""

    effect: EffectClass | None = Field(default=None, description="Otherwise as its kind.")
    deadline: Seconds = Field(default=8.0, description="All attempts, waits and fallbacks.")
    attempt_timeout: Seconds = 3.0
    connect_timeout: Seconds = 0.5
    retry: RetryPolicy = RetryPolicy()
    retry_budget: RetryBudgetPolicy = RetryBudgetPolicy()
    breaker: BreakerPolicy = BreakerPolicy()
    bulkhead: BulkheadPolicy = BulkheadPolicy()
    rate_limit: RateLimitPolicy | None = None
    hedge: HedgePolicy | None = None
    cache: CachePolicy = CachePolicy()
    fallback: tuple[FallbackPolicy, ...] = ()
    idempotency: IdempotencyPolicy | None = None
    verify: VerifyPolicy | None = None
    requires: tuple[str, ...] = ()
    approval: ApprovalPolicy | None = Field(
        default=None, description="By itself always for what is destructive, else never."
    )
    limits: ResultLimits = ResultLimits()
    egress: EgressPolicy = EgressPolicy()
    on_cancel: Literal["cancel", "finish"] | None = Field(
        default=None, description="When the client leaves; otherwise writes finish."
    )


def effect_defaults(policy: ToolPolicy, effect: EffectClass) -> dict[str, Any]:
    """Return the fields whose defaults depend on the effect."""
    on_cancel = "finish" if effect in WRITE_EFFECTS else "cancel"
    approval = ApprovalPolicy() if effect == "destructive" else None
    return {
        "effect": effect,
        "on_cancel": policy.on_cancel or on_cancel,
        "approval": policy.approval or approval,
    }


class RequestPolicy(Policy):
    """Limits of one request."""

    deadline: Seconds = 60.0
    max_steps: int = Field(default=8, ge=1, description="Turns of the model.")
    max_tool_calls: int = Field(default=12, ge=0)
    max_parallel: int = Field(default=4, ge=1)
    max_identical_calls: int = Field(default=2, ge=1)
    max_failed_steps: int = Field(default=3, ge=1, description="In a row.")
    answer_reserve: Seconds = Field(default=2.5, description="Of the deadline, kept from tools.")
