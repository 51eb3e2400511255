"""Fallbacks of a failed call: another tool, a cached result, a constant; the first that answers."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from opentelemetry import trace

from falsework.server.observability import telemetry
from falsework.server.tools.config import FallbackPolicy, ToolConfig
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import CallContext, ToolCall


class FallbackTool(Protocol):
    """A tool that may answer instead."""

    name: str

    @property
    def has_side_effects(self) -> bool:
        """Whether a call may change something."""
        ...

    async def call(self, call: ToolCall, context: CallContext) -> ToolResult:
        """Run a call; errors are part of the result."""
        ...


class FallbackChain:
    """Tries the fallbacks of one tool in order."""

    def __init__(
        self,
        entry: ToolConfig,
        label: str,
        tools: Mapping[str, FallbackTool],
        cached: Callable[[tuple[str, str], float, str], tuple[Any] | None],
        truncate: Callable[[Any], tuple[Any, bool]],
    ) -> None:
        """`cached` looks a result up by key and age; `truncate` cuts a value for the model."""
        self._entry = entry
        self._label = label
        self._tools = tools
        self._cached = cached
        self._truncate = truncate

    async def run(self, failed: ToolResult, context: CallContext) -> ToolResult:
        """Return the result of the first fallback that has one, else the failed result."""
        assert failed.error is not None, "it failed"
        for fallback in self._entry.fallback:
            if failed.error.kind in fallback.when:
                result = await self._try(fallback, failed, context)
                if result:
                    return result
        return failed

    async def _try(
        self, fallback: FallbackPolicy, failed: ToolResult, context: CallContext
    ) -> ToolResult | None:
        if fallback.tool is not None:
            return await self._try_tool(self._tools[fallback.tool], fallback, failed, context)
        if fallback.stale:
            max_age = self._entry.cache.stale_if_error
            cached = self._cached((context.principal, failed.canonical), max_age, "stale")
            return self._degraded(failed, cached[0], fallback, "stale") if cached else None
        return self._degraded(failed, fallback.value, fallback, "value")

    async def _try_tool(
        self, tool: FallbackTool, fallback: FallbackPolicy, failed: ToolResult, context: CallContext
    ) -> ToolResult | None:
        result = await tool.call(ToolCall(failed.call_id, tool.name, failed.canonical), context)
        failed = replace(failed, effect=result.effect) if tool.has_side_effects else failed
        if result.ok:
            return self._degraded(failed, result.value, fallback, tool.name)
        return replace(failed, error=result.error) if result.effect == "unknown" else None

    def _degraded(
        self, failed: ToolResult, value: Any, fallback: FallbackPolicy, to: str
    ) -> ToolResult:
        telemetry.FALLBACKS.labels(self._label, to).inc()
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
