"""The items of a conversation, as clients spell them and as responses had them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from falsework.server.refusals import BadRequest
from falsework.server.wire import parse_as, spell
from falsework.server.wiremessages import Wire

Json = dict[str, Any]
At = tuple[int | str, ...]

Name = Annotated[str, Field(min_length=1)]


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class TextPart(Wire):
    """A part of a content: text, the only thing that this model reads."""

    type: Literal["input_text", "output_text", "refusal", "text"]
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.refusal if self.type == "refusal" else self.text) is None:
            raise PydanticCustomError("custom", "A part should have its text")
        return self

    def said(self) -> str:
        """Return the text."""
        return (self.refusal if self.type == "refusal" else self.text) or ""


Content = Annotated[list[TextPart], BeforeValidator(_parts)]


class ThoughtPart(Wire):
    """A part of a thought or of its summary."""

    text: str | None = None


class Item(Wire):
    """An item of any kind."""

    id: str | None = None


class Reference(Item):
    """An item that a kept response has."""

    id: Name


class MessageItem(Item):
    """What somebody said."""

    role: Literal["assistant", "developer", "system", "user"]
    content: Content


class FunctionCall(Item):
    """A call of a client's function."""

    call_id: Name
    name: Name
    arguments: str


class CustomCall(Item):
    """A call of a client's custom tool."""

    call_id: Name
    name: Name
    input: str | None = None


class CallOutput(Item):
    """What a client's tool returned."""

    call_id: Name
    output: Content


class McpCall(Item):
    """A call that the server ran; one without output and error was cut off."""

    id: Name
    name: Name
    server_label: str | None = None
    arguments: str | None = None
    output: str | None = None
    error: Any = None
    approval_request_id: str | None = None


class ToolListing(Item):
    """The tools of an MCP server."""

    server_label: Name


class ApprovalRequest(Item):
    """A call that waits for approval."""

    id: Name
    name: Name
    server_label: str
    arguments: str


class ApprovalResponse(Item):
    """What the client said to a call that waited."""

    approval_request_id: Name
    approve: bool
    reason: str | None = None


class Thought(Item):
    """What the model thought."""

    content: list[ThoughtPart] | None = None
    summary: list[ThoughtPart] | None = None


KINDS: Mapping[str, type[Item]] = {
    "custom_tool_call": CustomCall,
    "custom_tool_call_output": CallOutput,
    "function_call": FunctionCall,
    "function_call_output": CallOutput,
    "mcp_approval_request": ApprovalRequest,
    "mcp_approval_response": ApprovalResponse,
    "mcp_call": McpCall,
    "mcp_list_tools": ToolListing,
    "message": MessageItem,
    "reasoning": Thought,
}


def read(item: Json, at: At) -> Item:
    """Return an item of its kind; refuse it by its place in the request."""
    kind = item.get("type") or ("message" if "role" in item else None)
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(f"'{each}'" for each in (*KINDS, "item_reference"))
        message = f"Invalid value: '{str(kind)[:100]}'. Supported values are: {known}."
        raise BadRequest(message, f"{spell(at)}.type", "invalid_value")
    return parse_as(KINDS[kind], item, {}, at)


def is_reference(item: Json) -> bool:
    """Tell whether an item is only named; its type may be left out."""
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "id" in item and "role" not in item)
