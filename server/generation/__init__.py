from falsework.server.generation.admission import AdmissionController
from falsework.server.generation.check_policy import CheckPolicy
from falsework.server.generation.choice import ChoiceDelta, FinishReason
from falsework.server.generation.left_out_tools import TOOL_LEFT_OUT
from falsework.server.generation.reply_limits import CUTS, REASONS, EndedBy
from falsework.server.generation.request import GenerationRequest, ParamNames, ResponseSchema
from falsework.server.generation.tool_loop import (
    ApprovalRequired,
    DeadlineExceeded,
    LoopEvent,
    ToolCallsFinished,
    ToolCallsStarted,
    ToolLoop,
)
from falsework.server.generation.turn import PreparedTurn, TurnBuilder
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.generation.usage import NO_USAGE, Usage

__all__ = [
    "CUTS",
    "NO_USAGE",
    "REASONS",
    "TOOL_LEFT_OUT",
    "AdmissionController",
    "ApprovalRequired",
    "CheckPolicy",
    "ChoiceDelta",
    "DeadlineExceeded",
    "EndedBy",
    "FinishReason",
    "GenerationRequest",
    "LoopEvent",
    "ParamNames",
    "PreparedTurn",
    "ResponseSchema",
    "ToolCallsFinished",
    "ToolCallsStarted",
    "ToolLoop",
    "TurnBuilder",
    "TurnRunner",
    "Usage",
]
