"""What became of a write whose answer never came, found out by a read."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from falsework.server.tools.config.expressions import evaluate, render_template
from falsework.server.tools.config.policies import VerifyPolicy
from falsework.server.tools.results import ToolResult, canonical_json

CallTool = Callable[[str, str], Awaitable[ToolResult]]
"""Calls a tool, by its name and its arguments' text."""

APPLIED_NOTE = "The answer was lost, but a check shows that it was done."

MAY_STILL_APPLY = frozenset({"timeout", "deadline", "504"})
"""Reasons after which a write may act yet: that it isn't seen now proves nothing."""


async def verify_write(
    verify: VerifyPolicy | None,
    failed: ToolResult,
    arguments: dict[str, Any],
    doubts: set[str],
    ask: CallTool,
) -> ToolResult:
    """Return what a read tells of a write; only a condition that is true or false decides."""
    if verify is None:
        return failed
    try:
        asked = canonical_json(render_template(verify.arguments, arguments))
    except KeyError:  # an optional argument that wasn't given
        return failed
    read = await ask(verify.tool, asked)
    if not read.ok or read.degraded:
        return failed
    applied = evaluate(verify.matches, args=arguments, result=read.value)
    if applied:
        return replace(failed, fault=None, value=read.value, effect="applied", note=APPLIED_NOTE)
    if applied is False and not doubts & MAY_STILL_APPLY:
        return replace(failed, effect="not_applied")
    return failed
