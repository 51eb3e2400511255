"""tool_choice as the OpenAI API means it, once for all model families."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from falsework.grammars.events import Tool


@dataclass(frozen=True)
class ToolChoice:
    """Which calls a reply may hold.

    `none`: no call; `auto`: text, calls, or text and then calls; `required`: at least one call.
    `only` restricts the offered tools to a subset (named function, allowed_tools); None means all.
    `parallel` False allows at most one call a reply. A named function is
    `ToolChoice("required", only=frozenset({name}), parallel=False)`.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    only: frozenset[str] | None = None
    parallel: bool = True

    def callable_tools(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        """Return the tools that this choice lets the model call, in the order offered."""
        if self.mode == "none":
            return ()
        return tuple(tool for tool in tools if self.only is None or tool.name in self.only)
