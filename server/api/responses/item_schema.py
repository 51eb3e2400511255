"""The items of a conversation, as clients spell them and as responses had them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from falsework.server.api.validation import ParamPath, WireModel, param_path, validate
from falsework.server.errors import unsupported_value
from falsework.server.types import Json

NonEmptyStr = Annotated[str, Field(min_length=1)]


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class TextPart(WireModel):
    """A part of a content: text, the only thing that this model reads."""

    type: Literal["input_text", "output_text", "refusal", "text"]
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.refusal if self.type == "refusal" else self.text) is None:
            raise PydanticCustomError("custom", "A part should have its text")
        return self

    def content_text(self) -> str:
        """Return the text."""
        return (self.refusal if self.type == "refusal" else self.text) or ""


Content = Annotated[list[TextPart], BeforeValidator(_parts)]


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

    call_id: NonEmptyStr
    name: NonEmptyStr
    arguments: str


class CustomToolCall(Item):
    """A call of a client's custom tool."""

    call_id: NonEmptyStr
    name: NonEmptyStr
    input: str | None = None


class ToolCallOutput(Item):
    """What a client's tool returned."""

    call_id: NonEmptyStr
    output: Content


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


ITEM_TYPES: Mapping[str, type[Item]] = {
    "custom_tool_call": CustomToolCall,
    "custom_tool_call_output": ToolCallOutput,
    "function_call": FunctionCall,
    "function_call_output": ToolCallOutput,
    "mcp_approval_request": McpApprovalRequest,
    "mcp_approval_response": McpApprovalResponse,
    "mcp_call": McpCall,
    "mcp_list_tools": McpListTools,
    "message": MessageItem,
    "reasoning": ReasoningItem,
}


def parse_item(item: Json, at: ParamPath) -> Item:
    """Return an item of its kind; refuse it by its place in the request."""
    kind = item.get("type") or ("message" if "role" in item else None)
    if not isinstance(kind, str) or kind not in ITEM_TYPES:
        supported = (*ITEM_TYPES, "item_reference")
        raise unsupported_value(str(kind), supported, f"{param_path(at)}.type")
    return validate(ITEM_TYPES[kind], item, at)


def is_reference(item: Json) -> bool:
    """Tell whether an item is only named; its type may be left out."""
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "id" in item and "role" not in item)
