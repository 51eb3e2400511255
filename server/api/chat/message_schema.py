"""The messages of a chat request as clients spell them."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict

from falsework.server.api.validation import WireModel


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class ContentPart(WireModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None
    refusal: str | None = None

    def media(self) -> object:
        """Return what a part that is no text holds, as the client wrote it."""
        return (self.model_extra or {}).get(self.type)


class ToolCallFunction(WireModel):
    """What an earlier call of the assistant said."""

    name: str
    arguments: str


class CustomToolCall(WireModel):
    """What an earlier call of a custom tool said."""

    name: str
    input: str


class ToolCallParam(WireModel):
    """An earlier call of the assistant."""

    id: str | None = None
    type: str = "function"
    function: ToolCallFunction | None = None
    custom: CustomToolCall | None = None


class ExecutedToolCall(WireModel):
    """A call that the server ran, as an earlier reply told it; a failed one has an error."""

    id: str
    name: str
    arguments: str
    output: str | None = None
    error: dict[str, Any] | None = None
    degraded: bool = False


class MessageParam(WireModel):
    """A message of any role."""

    role: str
    content: Annotated[list[ContentPart] | None, BeforeValidator(_parts)] = None
    name: str | None = None
    tool_calls: list[ToolCallParam] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: dict[str, Any] | None = None
    executed_tools: list[ExecutedToolCall] | None = None
