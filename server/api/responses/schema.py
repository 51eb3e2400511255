"""The body of POST /v1/responses as clients spell it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from falsework.server.api.common_schema import (
    CommonFields,
    TokenLimit,
    expand_shorthand_choice,
)
from falsework.server.api.validation import UnsupportedFields, WireModel, parse_body

UNSUPPORTED_FIELDS: UnsupportedFields = {
    "conversation": (None, "use previous_response_id"),
    "frequency_penalty": (0, "use /v1/chat/completions"),
    "moderation": (None, "nothing is moderated here"),
    "n": (1, "a response is one choice"),
    "presence_penalty": (0, "use /v1/chat/completions"),
    "prompt": (None, "write it into instructions and input"),
    "stop": (None, "use /v1/chat/completions"),
}

INCLUDE_LOGPROBS = "message.output_text.logprobs"
INCLUDE_REASONING = "reasoning.encrypted_content"
INCLUDABLE = frozenset(
    {
        INCLUDE_LOGPROBS,
        INCLUDE_REASONING,
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
"""What may be asked for; all but log probabilities and reasoning changes nothing here."""


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


class SchemaFormat(WireModel):
    """The schema that the text must satisfy."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


TEXT_FORMATS = ("json_object", "json_schema", "text")


class TextOptions(WireModel):
    """How the text should be."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(WireModel):
    """How much to think."""

    effort: str | None = None
    summary: str | None = None


class ResponseToolRef(WireModel):
    """A tool, or all tools of an MCP server or of a namespace."""

    type: str
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None


class ResponseToolChoice(ResponseToolRef):
    """tool_choice, its one-word forms spelled as objects."""

    mode: str | None = None
    tools: list[ResponseToolRef] | None = None


class CreateResponseRequest(CommonFields):
    """The body of POST /v1/responses."""

    input: Annotated[list[dict[str, Any]] | None, BeforeValidator(_items)] = None
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Annotated[ResponseToolChoice | None, BeforeValidator(expand_shorthand_choice)] = (
        None
    )
    max_output_tokens: TokenLimit = None
    max_tool_calls: int | None = Field(default=None, ge=0)
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    include: list[str] | None = None
    context_management: list[dict[str, Any]] | None = None
    truncation: str | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def parse(body: bytes) -> CreateResponseRequest:
    """Return the request that a body holds; raise BadRequestError."""
    return parse_body(CreateResponseRequest, body, UNSUPPORTED_FIELDS)
