"""What became of a write whose answer never came, found out by a read."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from falsework.runtime.conditions import filled, judged
from falsework.runtime.outcomes import Outcome, canonical
from falsework.runtime.policies import Verify

Ask = Callable[[str, str], Awaitable[Outcome]]
"""Calls a tool, by its name and its arguments' text."""

NOTE = "The answer was lost, but a check shows that it was done."

STILL_RUNNING = frozenset({"timeout", "deadline", "504"})
"""Reasons after which a write may act yet: that it isn't seen now proves nothing."""


async def verified(
    verify: Verify | None, failed: Outcome, arguments: dict[str, Any], doubts: set[str], ask: Ask
) -> Outcome:
    """Return what a read tells of a write; only a condition that is true or false decides."""
    if verify is None:
        return failed
    try:
        asked = canonical(filled(verify.arguments, arguments))
    except KeyError:  # an optional argument that wasn't given
        return failed
    read = await ask(verify.tool, asked)
    if not read.ok or read.degraded:
        return failed
    applied = judged(verify.matches, args=arguments, result=read.value)
    if applied:
        return replace(failed, fault=None, value=read.value, effect="applied", note=NOTE)
    if applied is False and not doubts & STILL_RUNNING:
        return replace(failed, effect="not_applied")
    return failed
