"""Verification: a read that decides whether a write whose answer never came was applied."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from falsework.server.tools.config import VerifyPolicy, evaluate, render_template
from falsework.server.tools.results import ToolResult, canonical_json
from falsework.server.types import Json

CallTool = Callable[[str, str], Awaitable[ToolResult]]
"""Calls a tool by its name and the JSON text of its arguments."""

APPLIED_NOTE = "The answer was lost, but a check shows that it was done."

MAY_STILL_APPLY = frozenset({"timeout", "deadline", "504"})
"""Reasons after which a write may still be applied: a read that doesn't see it proves nothing."""


async def verify_write(
    verify: VerifyPolicy | None,
    failed: ToolResult,
    arguments: Json,
    ambiguous: set[str],
    call_tool: CallTool,
) -> ToolResult:
    """Return the result of a write after a read; only a condition that is true or false decides."""
    if verify is None:
        return failed
    try:
        arguments_text = canonical_json(render_template(verify.arguments, arguments))
    except KeyError:  # an optional argument that wasn't given
        return failed
    observed = await call_tool(verify.tool, arguments_text)
    if not observed.ok or observed.degraded:
        return failed
    applied = evaluate(verify.matches, args=arguments, result=observed.value)
    if applied:
        return replace(
            failed, error=None, value=observed.value, effect="applied", note=APPLIED_NOTE
        )
    if applied is False and not ambiguous & MAY_STILL_APPLY:
        return replace(failed, effect="not_applied")
    return failed
