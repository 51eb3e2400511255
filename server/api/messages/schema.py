"""The body of POST /v1/messages as clients spell it: Anthropic's protocol.

A field that isn't listed is accepted and changes nothing (`metadata`, `cache_control`,
`context_management` and whatever a beta adds), or is refused by name (`UNSUPPORTED_FIELDS`).
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from falsework.server.api.tools import leave_out_type
from falsework.server.api.validation import (
    TYPE,
    ParamPath,
    UnsupportedFields,
    WireModel,
    one_of,
    param_path,
    parse_body,
    validate,
)
from falsework.server.errors import BadRequestError

UNSUPPORTED_FIELDS: UnsupportedFields = {"container": (None, "nothing runs in containers here")}

CLIENT_TOOL_PREFIXES = ("bash_", "text_editor_")
"""Types of tools that the client runs and whose schema the protocol leaves to the model."""


def _blocks(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Block(WireModel):
    """A block of a message's content; which fields it has depends on its type."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    tool_name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    is_error: bool | None = None
    source: Any = None
    title: str | None = None
    content: Any = None


Content = Annotated[list[Block], BeforeValidator(_blocks)]


class MessageParam(WireModel):
    """A message."""

    role: Literal["assistant", "system", "user"]
    content: Content


class CustomTool(WireModel):
    """A tool that the client runs; `strict` changes nothing: every schema is enforced."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class BuiltInTool(WireModel):
    """A tool of a type that names its schema."""

    type: str
    name: str


class AnyChoice(WireModel):
    """tool_choice: any tool, or none."""

    type: Literal["any", "auto", "none"]
    disable_parallel_tool_use: bool | None = None


class ToolChoice(WireModel):
    """tool_choice: one tool."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


TOOL_CHOICES: dict[str, type[WireModel]] = {
    "any": AnyChoice,
    "auto": AnyChoice,
    "none": AnyChoice,
    "tool": ToolChoice,
}


class ThinkingParam(WireModel):
    """Whether to think, and how many tokens of it."""

    type: Literal["adaptive", "disabled", "enabled"]
    budget_tokens: int | None = Field(default=None, ge=1)
    display: str | None = None


class OutputFormat(WireModel):
    """The schema that the text must satisfy."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(WireModel):
    """How much work to put into the reply, and what form its text has."""

    effort: str | None = None
    format: OutputFormat | None = None


def _tools(tools: object) -> list[WireModel] | None:
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise BadRequestError("Invalid 'tools': Input should be a valid list.", "tools", TYPE)
    return [_tool(tool, ("tools", i)) for i, tool in enumerate(tools)]


def _tool(tool: object, at: ParamPath) -> WireModel:
    param = param_path(at)
    if not isinstance(tool, dict):
        raise BadRequestError(f"Invalid '{param}': Input should be an object.", param, TYPE)
    kind = tool.get("type")
    if kind in (None, "custom"):
        return validate(CustomTool, tool, at)
    if isinstance(kind, str) and not kind.startswith(CLIENT_TOOL_PREFIXES):
        return leave_out_type(kind, param)
    return validate(BuiltInTool, tool, at)


class CountTokensRequest(WireModel):
    """The body of POST /v1/messages/count_tokens."""

    model: str
    messages: list[MessageParam] = Field(min_length=1)
    system: Content | None = None
    tools: Annotated[list[WireModel] | None, PlainValidator(_tools)] = None
    tool_choice: Annotated[
        WireModel | None, one_of(TOOL_CHOICES, "tool_choice", param="tool_choice.type")
    ] = None
    thinking: ThinkingParam | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    mcp_servers: list[dict[str, Any]] | None = None


class CreateMessageRequest(CountTokensRequest):
    """The body of POST /v1/messages."""

    max_tokens: int = Field(ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None, max_length=64
    )
    stream: bool | None = None


def parse(body: bytes) -> CreateMessageRequest:
    """Return the request that a body holds; raise BadRequestError."""
    return parse_body(CreateMessageRequest, body, UNSUPPORTED_FIELDS)


def parse_count(body: bytes) -> CountTokensRequest:
    """Return the request for a count that a body holds; raise BadRequestError."""
    return parse_body(CountTokensRequest, body, UNSUPPORTED_FIELDS)
