from falsework.server.engines.base import (
    Constraint,
    Engine,
    EngineDeadError,
    EngineStartError,
    OutputDelta,
    RequestTimings,
    SamplingParams,
    ThinkingBudget,
    TokenLogprob,
)
from falsework.server.engines.cpu import emulates_bfloat16, intel_runtime
from falsework.server.engines.supervisor import EngineSupervisor

__all__ = [
    "Constraint",
    "Engine",
    "EngineDeadError",
    "EngineStartError",
    "EngineSupervisor",
    "OutputDelta",
    "RequestTimings",
    "SamplingParams",
    "ThinkingBudget",
    "TokenLogprob",
    "emulates_bfloat16",
    "intel_runtime",
]
