"""The tools of POST /v1/responses as clients spell them."""

from collections.abc import Mapping
from typing import Any, Literal

from falsework.server.api.validation import WireModel


class CustomFormat(WireModel):
    """The form that a custom tool's text must have: any text, or a grammar's."""

    type: Literal["grammar", "text"]
    definition: str | None = None
    syntax: Literal["lark", "regex"] | None = None


class CustomTool(WireModel):
    """A tool that takes free text."""

    type: Literal["custom"]
    name: str
    description: str | None = None
    format: CustomFormat | None = None


class FunctionTool(WireModel):
    """A function of the client's; `strict` changes nothing: every schema is enforced."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamespaceTool(WireModel):
    """Functions and custom tools under one name."""

    type: Literal["namespace"]
    name: str
    tools: list[dict[str, Any]]


class LocalShellTool(WireModel):
    """A shell that the client runs one command at a time in."""

    type: Literal["local_shell"]


class ShellEnvironment(WireModel):
    """Where a shell runs: with the client (`local`), or in a container of somebody else."""

    type: str


class ShellTool(WireModel):
    """A shell that the client runs commands in."""

    type: Literal["shell"]
    environment: ShellEnvironment | None = None


class ApplyPatchTool(WireModel):
    """The client's way to write files."""

    type: Literal["apply_patch"]


class ToolSearchTool(WireModel):
    """A search for further tools, which the client does (`client`) or the server would."""

    type: Literal["tool_search"]
    execution: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


MEMBERS: Mapping[str, type[WireModel]] = {"custom": CustomTool, "function": FunctionTool}
"""What a namespace may hold."""

TOOLS: Mapping[str, type[WireModel]] = {
    **MEMBERS,
    "apply_patch": ApplyPatchTool,
    "local_shell": LocalShellTool,
    "namespace": NamespaceTool,
    "shell": ShellTool,
    "tool_search": ToolSearchTool,
}
