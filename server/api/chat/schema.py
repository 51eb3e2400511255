"""The chat request as clients spell it; spellings that mean the same become one here.

Every field is honoured (`ChatCompletionRequest`), changes nothing here (`IGNORED_FIELDS`), or would
change the result and is refused by name (`UNSUPPORTED_FIELDS`). A field that nobody knows yet is
accepted, and null always means absent.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from falsework.server.api.chat.message_schema import MessageParam
from falsework.server.api.chat.structured_outputs import GuidedFields
from falsework.server.api.common_schema import (
    CommonFields,
    TokenLimit,
    expand_shorthand_choice,
)
from falsework.server.api.tools import GrammarDefinition, parse_tool_params
from falsework.server.api.validation import UnsupportedFields, WireModel, one_of, parse_body

IGNORED_FIELDS = frozenset(
    {
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
"""Fields of the protocol that have nothing to change here."""

UNSUPPORTED_FIELDS: UnsupportedFields = {
    "add_generation_prompt": (True, "a reply always begins a new turn"),
    "allowed_token_ids": ([], "use response_format"),
    "audio": (None, "only text is spoken here"),
    "bad_words": ([], "use logit_bias"),
    "best_of": (1, "use n"),
    "chat_template": ("", "the dialect is the server's own"),
    "continue_final_message": (False, "a reply always begins a new turn"),
    "documents": ([], "write them into a message"),
    "echo": (False, "the reply is returned alone"),
    "ebnf": ("", "use structured_outputs.grammar, which takes Lark"),
    "extra_body": ({}, "its fields stand beside the others on the wire"),
    "grammar": ("", "use structured_outputs.grammar, which takes Lark"),
    "guided_whitespace_pattern": (None, "JSON has ', ' and ': ' and no other blanks"),
    "ignore_eos": (False, "a reply ends where the model ends it"),
    "length_penalty": (1.0, "there is no beam search here"),
    "logits_processors": ([], "use logit_bias"),
    "max_new_tokens": (None, "use max_tokens"),
    "min_tokens": (0, "a reply ends where the model ends it"),
    "modalities": (["text"], "only text is spoken here"),
    "moderation": (None, "nothing is moderated here"),
    "n_predict": (-1, "use max_tokens"),
    "num_predict": (-1, "use max_tokens"),
    "options": ({}, "its fields stand beside the others here, num_predict as max_tokens"),
    "stop_token_ids": ([], "use stop"),
    "use_beam_search": (False, "use temperature and top_p"),
}


def _several(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


def _biases(biases: object) -> object:
    if not isinstance(biases, dict):
        return biases
    if not all(str(token).isdecimal() for token in biases):
        raise PydanticCustomError("custom", "Every key should be a token id")
    return {int(token): bias for token, bias in biases.items()}


class FunctionParam(WireModel):
    """A function as a client defines it; `strict` changes nothing: every schema is enforced."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(WireModel):
    """A tool that the client runs."""

    type: Literal["function"]
    function: FunctionParam


class CustomFormat(WireModel):
    """The form that a custom tool's text must have: any text, or a grammar's."""

    type: Literal["grammar", "text"]
    grammar: GrammarDefinition | None = None


class CustomParam(WireModel):
    """A tool of free text as a client defines it."""

    name: str
    description: str | None = None
    format: CustomFormat | None = None


class CustomTool(WireModel):
    """A tool of free text that the client runs."""

    type: Literal["custom"]
    custom: CustomParam


class FunctionName(WireModel):
    """A function that is named."""

    name: str


class ToolRef(WireModel):
    """A tool that is named."""

    type: str
    function: FunctionName | None = None
    custom: FunctionName | None = None


class AllowedTools(WireModel):
    """The tools of which a reply may call some."""

    mode: str
    tools: list[ToolRef]


class AllowedToolsChoice(WireModel):
    """tool_choice: some of the tools."""

    allowed_tools: AllowedTools | None = None


class FunctionChoice(WireModel):
    """tool_choice: one function."""

    function: FunctionName | None = None


class CustomChoice(WireModel):
    """tool_choice: one custom tool."""

    custom: FunctionName | None = None


class ModeChoice(WireModel):
    """tool_choice: any tool, by one word."""

    type: Literal["auto", "none", "required"]


TOOLS: dict[str, type[WireModel]] = {"custom": CustomTool, "function": FunctionTool}


def _tools(tools: object) -> list[WireModel] | None:
    return None if tools is None else parse_tool_params(tools, TOOLS)


TOOL_CHOICES: dict[str, type[WireModel]] = {
    "allowed_tools": AllowedToolsChoice,
    "auto": ModeChoice,
    "custom": CustomChoice,
    "function": FunctionChoice,
    "none": ModeChoice,
    "required": ModeChoice,
}


class JSONSchemaFormat(WireModel):
    """The schema that a reply's text must satisfy."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextFormat(WireModel):
    """response_format: text, or any JSON object; some servers let a schema stand beside it."""

    type: Literal["json_object", "text"]
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    value: dict[str, Any] | None = None


class SchemaFormat(WireModel):
    """response_format: text that satisfies a schema."""

    type: Literal["json_schema"]
    json_schema: JSONSchemaFormat


RESPONSE_FORMATS: dict[str, type[WireModel]] = {
    "json_object": TextFormat,
    "json_schema": SchemaFormat,
    "text": TextFormat,
}


class ThinkingSwitch(WireModel):
    """thinking: on or off, as DeepSeek's and other servers have it."""

    type: Literal["auto", "disabled", "enabled"]


class ReasoningFields(WireModel):
    """reasoning: how much, as OpenRouter has it."""

    effort: str | None = None
    enabled: bool | None = None
    max_tokens: int | None = Field(default=None, ge=0)


class StreamOptions(WireModel):
    """What a stream has beside the reply."""

    include_usage: bool | None = None


class ChatCompletionRequest(GuidedFields, CommonFields):
    """The body of POST /v1/chat/completions."""

    messages: list[MessageParam] = Field(min_length=1)
    tools: Annotated[list[WireModel] | None, PlainValidator(_tools)] = None
    tool_choice: Annotated[
        WireModel | None,
        one_of(TOOL_CHOICES, "tool_choice", param="tool_choice"),
        BeforeValidator(expand_shorthand_choice),
    ] = None
    response_format: Annotated[WireModel | None, one_of(RESPONSE_FORMATS, "response_format")] = None
    max_tokens: TokenLimit = None
    max_completion_tokens: TokenLimit = None
    n: int | None = Field(default=None, ge=1, le=128)
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=2)
    logit_bias: Annotated[
        dict[int, Annotated[float, Field(ge=-100, le=100)]] | None, BeforeValidator(_biases)
    ] = None
    logprobs: bool | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        Field(max_length=4),
        BeforeValidator(_several),
    ] = None
    stream_options: StreamOptions | None = None
    web_search_options: dict[str, Any] | None = None
    functions: list[FunctionParam] | None = None
    function_call: Annotated[
        Literal["auto", "none"] | FunctionName | None, Field(union_mode="left_to_right")
    ] = None
    reasoning_effort: str | None = None
    reasoning: ReasoningFields | None = None
    enable_thinking: bool | None = None
    thinking: ThinkingSwitch | None = None
    thinking_budget: int | None = Field(default=None, ge=0)
    chat_template_kwargs: dict[str, Any] | None = None


def parse(body: bytes) -> ChatCompletionRequest:
    """Return the request that a body holds; raise BadRequestError."""
    return parse_body(ChatCompletionRequest, body, UNSUPPORTED_FIELDS)
