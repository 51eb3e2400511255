"""The items of a conversation, as clients spell them and as responses had them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from falsework.server.api.media import CONTENT_LEFT_OUT, leave_out_media, not_text
from falsework.server.api.validation import ParamPath, WireModel, param_path, validate
from falsework.server.errors import unsupported_value
from falsework.server.observability import warn_client
from falsework.server.types import Json

NonEmptyStr = Annotated[str, Field(min_length=1)]


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


TEXT_PARTS = frozenset({"input_text", "output_text", "refusal", "text"})


class ContentPart(WireModel):
    """A part of a content: text, or what a model that reads text alone is told of in words."""

    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.type in TEXT_PARTS and self._text is None:
            raise PydanticCustomError("custom", "A part should have its text")
        return self

    @property
    def _text(self) -> str | None:
        return self.refusal if self.type == "refusal" else self.text

    def content_text(self, param: str, *, past: bool) -> str:
        """Return the text; of a part that is none what stands for it, if it is `past`."""
        if self.type in TEXT_PARTS:
            return self._text or ""
        if not past:
            raise not_text(self.type, f"{param}.type")
        return leave_out_media(self.type, dict(self.model_extra or {}), param)


Content = Annotated[list[ContentPart], BeforeValidator(_parts)]


class ReasoningPart(WireModel):
    """A part of a thought or of its summary."""

    text: str | None = None


class Item(WireModel):
    """An item of any kind."""

    id: str | None = None


class ItemReference(Item):
    """An item that a kept response has."""

    id: NonEmptyStr


class MessageItem(Item):
    """What somebody said."""

    role: Literal["assistant", "developer", "system", "user"]
    content: Content


class FunctionCall(Item):
    """A call of a client's function."""

    call_id: str | None = None
    name: NonEmptyStr
    namespace: str | None = None
    arguments: str


class CustomToolCall(Item):
    """A call of a client's custom tool."""

    call_id: str | None = None
    name: NonEmptyStr
    namespace: str | None = None
    input: str | None = None


class ToolCallOutput(Item):
    """What a client's tool returned."""

    call_id: str | None = None
    output: Content


class LocalShellCall(Item):
    """A command that the client was to run."""

    call_id: str | None = None
    action: dict[str, Any]


class LocalShellOutput(Item):
    """What the command printed; its `id` is the call's."""

    call_id: str | None = None
    output: Content


class ShellCall(Item):
    """Commands that the client was to run."""

    call_id: str | None = None
    action: dict[str, Any]


class ShellOutput(Item):
    """What each command printed, and how it ended."""

    call_id: str | None = None
    output: list[dict[str, Any]] | str


class ApplyPatchCall(Item):
    """A file that the client was to write."""

    call_id: str | None = None
    operation: dict[str, Any]


class ApplyPatchOutput(Item):
    """What became of the file."""

    call_id: str | None = None
    status: str | None = None
    output: str | None = None


class ToolSearchCall(Item):
    """A search for tools."""

    call_id: str | None = None
    arguments: Any = None


class ToolSearchOutput(Item):
    """The tools that a search has found; they are offered from then on."""

    call_id: str | None = None
    tools: list[dict[str, Any]] | None = None


class AdditionalTools(Item):
    """Tools that are offered beside the request's."""

    tools: list[dict[str, Any]]


class HostedCall(Item):
    """A call of a tool that somebody else ran: nothing of it is for this model."""


class CompactionItem(Item):
    """What stands for the conversation before it."""

    encrypted_content: str


class McpCall(Item):
    """A call that the server ran; one without output and error was cut off."""

    id: NonEmptyStr
    name: NonEmptyStr
    server_label: str | None = None
    arguments: str | None = None
    output: str | None = None
    error: Any = None
    approval_request_id: str | None = None


class McpListTools(Item):
    """The tools of an MCP server."""

    server_label: NonEmptyStr


class McpApprovalRequest(Item):
    """A call that waits for approval."""

    id: NonEmptyStr
    name: NonEmptyStr
    server_label: str
    arguments: str


class McpApprovalResponse(Item):
    """What the client said to a call that waited."""

    approval_request_id: NonEmptyStr
    approve: bool
    reason: str | None = None


class ReasoningItem(Item):
    """What the model thought."""

    content: list[ReasoningPart] | None = None
    summary: list[ReasoningPart] | None = None
    encrypted_content: str | None = None


ITEM_TYPES: Mapping[str, type[Item]] = {
    "additional_tools": AdditionalTools,
    "apply_patch_call": ApplyPatchCall,
    "apply_patch_call_output": ApplyPatchOutput,
    "compaction": CompactionItem,
    "compaction_summary": CompactionItem,
    "custom_tool_call": CustomToolCall,
    "custom_tool_call_output": ToolCallOutput,
    "function_call": FunctionCall,
    "function_call_output": ToolCallOutput,
    "local_shell_call": LocalShellCall,
    "local_shell_call_output": LocalShellOutput,
    "mcp_approval_request": McpApprovalRequest,
    "mcp_approval_response": McpApprovalResponse,
    "mcp_call": McpCall,
    "mcp_list_tools": McpListTools,
    "message": MessageItem,
    "reasoning": ReasoningItem,
    "shell_call": ShellCall,
    "shell_call_output": ShellOutput,
    "tool_search_call": ToolSearchCall,
    "tool_search_output": ToolSearchOutput,
}

HOSTED_ITEMS = frozenset(
    {
        "code_interpreter_call",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "image_generation_call",
        "program",
        "program_output",
        "web_search_call",
    }
)
"""Items of tools that others run. What they hold reaches no model that reads text alone."""

ITEMS_WITH_TOOLS = frozenset({"additional_tools", "tool_search_output"})


def parse_item(item: Json, at: ParamPath) -> Item:
    """Return an item of its kind; refuse it by its place in the request."""
    kind = item.get("type") or ("message" if "role" in item else None)
    if isinstance(kind, str) and kind in HOSTED_ITEMS:
        message = f"{param_path(at)}, a '{kind}', is left out: it's of a tool that others run."
        warn_client(CONTENT_LEFT_OUT, message, param_path(at))
        return HostedCall()
    if not isinstance(kind, str) or kind not in ITEM_TYPES:
        supported = (*ITEM_TYPES, "item_reference")
        raise unsupported_value(str(kind), supported, f"{param_path(at)}.type")
    return validate(ITEM_TYPES[kind], item, at)


def is_reference(item: Json) -> bool:
    """Tell whether an item is only named; its type may be left out."""
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "id" in item and "role" not in item)
