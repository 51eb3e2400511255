"""The body of POST /v1/responses as clients spell it."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from falsework.server.api.chat.message_schema import WireModel
from falsework.server.api.chat.schema import expand_shorthand_choice, validate

UNSUPPORTED_FIELDS: Mapping[str, tuple[Any, str]] = {
    "context_management": (None, "send what should be left out no more"),
    "conversation": (None, "use previous_response_id"),
    "frequency_penalty": (0, "use /v1/chat/completions"),
    "moderation": (None, "nothing is moderated here"),
    "n": (1, "a response is one choice"),
    "presence_penalty": (0, "use /v1/chat/completions"),
    "prompt": (None, "write it into instructions and input"),
    "stop": (None, "use /v1/chat/completions"),
}
"""Fields that would change the result and aren't honoured: the value that asks for nothing, and
what to do instead."""

INCLUDE_LOGPROBS = "message.output_text.logprobs"
INCLUDABLE = frozenset(
    {
        INCLUDE_LOGPROBS,
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
"""What may be asked for; all but the log probabilities changes nothing here."""


def _items(given: object) -> object:
    return (
        [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
    )


class TextFormat(WireModel):
    """What form the text must have; flat, unlike chat's."""

    type: str
    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextOptions(WireModel):
    """How the text should be."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(WireModel):
    """How much to think."""

    effort: str | None = None
    summary: str | None = None


class ResponseToolRef(WireModel):
    """A tool, or all tools of an MCP server."""

    type: str
    name: str | None = None
    server_label: str | None = None


class ResponseToolChoice(ResponseToolRef):
    """tool_choice, its one-word forms spelled as objects."""

    mode: str | None = None
    tools: list[ResponseToolRef] | None = None


class CustomFormat(WireModel):
    """The form that a custom tool's text must have."""

    type: str


class CustomTool(WireModel):
    """A custom tool; all else of it is a function's."""

    format: CustomFormat | None = None


class CreateResponseRequest(WireModel):
    """The body of POST /v1/responses."""

    model: str
    input: Annotated[list[dict[str, Any]] | None, BeforeValidator(_items)] = None
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Annotated[ResponseToolChoice | None, BeforeValidator(expand_shorthand_choice)] = (
        None
    )
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    max_tool_calls: int | None = Field(default=None, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    include: list[str] | None = None
    truncation: str | None = None
    metadata: (
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None
    ) = Field(default=None, max_length=16)
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def parse(body: bytes) -> CreateResponseRequest:
    """Return the request that a body spells."""
    return validate(CreateResponseRequest, body, UNSUPPORTED_FIELDS)
