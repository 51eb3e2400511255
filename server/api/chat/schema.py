"""The chat request as clients spell it; spellings that mean the same become one here.

Every field is honoured (`ChatRequest`), changes nothing here (`IGNORED`), or would change the
result and is refused by name (`REFUSED`). A field that nobody knows yet is accepted, and null
always means absent.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from falsework.server.api import tool_filters
from falsework.server.api.chat.message_schema import MessageParam, WireModel
from falsework.server.errors import BadRequestError

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

UNSUPPORTED_FIELDS: Mapping[str, tuple[Any, str]] = {
    "add_generation_prompt": (True, "a reply always begins a new turn"),
    "allowed_token_ids": ([], "use response_format"),
    "audio": (None, "only text is spoken here"),
    "bad_words": ([], "use logit_bias"),
    "best_of": (1, "use n"),
    "chat_template": ("", "the dialect is the server's own"),
    "continue_final_message": (False, "a reply always begins a new turn"),
    "documents": ([], "write them into a message"),
    "echo": (False, "the reply is returned alone"),
    "function_call": (None, "it is deprecated: use tool_choice"),
    "functions": (None, "it is deprecated: use tools"),
    "guided_choice": (None, "use response_format"),
    "guided_grammar": (None, "use response_format"),
    "guided_json": (None, "use response_format"),
    "guided_regex": (None, "use response_format"),
    "ignore_eos": (False, "a reply ends where the model ends it"),
    "length_penalty": (1.0, "there is no beam search here"),
    "logits_processors": ([], "use logit_bias"),
    "min_tokens": (0, "a reply ends where the model ends it"),
    "modalities": (["text"], "only text is spoken here"),
    "moderation": (None, "nothing is moderated here"),
    "stop_token_ids": ([], "use stop"),
    "structured_outputs": (None, "use response_format"),
    "use_beam_search": (False, "use temperature and top_p"),
    "web_search_options": (None, "there is no web search here"),
}
"""Fields that would change the result and aren't honoured: the value that asks for nothing, and
what to do instead."""

ERROR_CODES = {"missing": "missing_required_parameter", "custom": "invalid_value"}
"""Error codes by the kind of fault; a kind that ends in `_type` is `invalid_type`."""


def _several(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


def expand_shorthand_choice(choice: object) -> object:
    """Spell a tool_choice of one word as an object."""
    return {"type": choice} if isinstance(choice, str) else choice


def _biases(biases: object) -> object:
    if not isinstance(biases, dict):
        return biases
    if not all(str(token).isdecimal() for token in biases):
        raise PydanticCustomError("custom", "Every key should be a token id")
    return {int(token): bias for token, bias in biases.items()}


class FunctionDefinition(WireModel):
    """A function as a client defines it; `strict` changes nothing: every schema is enforced."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolParam(WireModel):
    """A tool as a client offers it, or one that the server runs (`mcp`, `server_tool`)."""

    type: str
    function: FunctionDefinition | None = None
    name: str | None = None
    server_label: str | None = None
    server_url: str | None = Field(default=None, pattern=r"^https?://[^/?#@\s]+(/|$)")
    authorization: str | None = Field(default=None, repr=False)
    headers: dict[str, str] | None = Field(default=None, repr=False)
    allowed_tools: tool_filters.AllowedToolsField | None = None
    require_approval: tool_filters.RequireApprovalField | None = None


class FunctionRef(WireModel):
    """A function that is meant."""

    name: str


class ToolRef(WireModel):
    """A tool that is meant."""

    type: str
    function: FunctionRef | None = None


class AllowedTools(WireModel):
    """The tools of which a reply may call some."""

    mode: str
    tools: list[ToolRef]


class ToolChoiceParam(WireModel):
    """tool_choice, its one-word forms spelled as objects."""

    type: str
    function: FunctionRef | None = None
    allowed_tools: AllowedTools | None = None


class JSONSchemaFormat(WireModel):
    """The schema that a reply's text must satisfy."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(WireModel):
    """What form a reply's text must have."""

    type: str
    json_schema: JSONSchemaFormat | None = None


class StreamOptions(WireModel):
    """What a stream tells beside the reply."""

    include_usage: bool | None = None


class ChatCompletionRequest(WireModel):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: list[MessageParam] = Field(min_length=1)
    tools: list[ToolParam] | None = None
    tool_choice: Annotated[ToolChoiceParam | None, BeforeValidator(expand_shorthand_choice)] = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=128)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=2)
    logit_bias: Annotated[
        dict[int, Annotated[float, Field(ge=-100, le=100)]] | None, BeforeValidator(_biases)
    ] = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        Field(max_length=4),
        BeforeValidator(_several),
    ] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    metadata: (
        dict[
            Annotated[str, Field(max_length=64)],
            Annotated[str, Field(max_length=512)],
        ]
        | None
    ) = Field(default=None, max_length=16)


def parse(body: bytes) -> ChatCompletionRequest:
    """Return the request that a body spells."""
    return validate(ChatCompletionRequest, body, UNSUPPORTED_FIELDS)


T = TypeVar("T", bound=WireModel)


def validate(
    kind: type[T],
    body: bytes | dict[str, Any],
    refused: Mapping[str, tuple[Any, str]],
    at: tuple[int | str, ...] = (),
) -> T:
    """Return the object of that kind which a body spells; refuse it by the name of the field.

    `at` is where it stands in the request.
    """
    raw = _object(body) if isinstance(body, bytes) else body
    for name, (neutral, instead) in refused.items():
        if raw.get(name) not in (None, neutral):
            message = f"'{name}' isn't supported by this server: {instead}."
            raise BadRequestError(message, name, "unsupported_parameter")
    try:
        return kind.model_validate(raw)
    except ValidationError as fault:
        raise _refusal(fault.errors(include_url=False)[0], at) from fault


def _object(body: bytes) -> dict[str, Any]:
    try:
        raw = from_json(body, allow_inf_nan=False)
    except ValueError as fault:
        raise BadRequestError(f"The body of the request isn't valid JSON: {fault}.") from fault
    if not isinstance(raw, dict):
        raise BadRequestError("The body of the request should be a JSON object.")
    return raw


def _refusal(fault: ErrorDetails, at: tuple[int | str, ...]) -> BadRequestError:
    path = (*at, *fault["loc"])
    where = param_path(path[:-2] if path[-1] == "[key]" else path)
    kind = fault["type"]
    code = "invalid_type" if kind.endswith("_type") else ERROR_CODES.get(kind, "invalid_value")
    if kind == "missing":
        return BadRequestError(f"Missing required parameter: '{where}'.", where, code)
    return BadRequestError(f"Invalid '{where}': {fault['msg'][:500]}.", where, code)


def param_path(path: tuple[int | str, ...]) -> str:
    """Return a path as OpenAI names parameters: `tools[0].type`, but `messages.[0].role`."""
    head = path[:1]
    bracket = ".[{}]" if head == ("messages",) else "[{}]"
    steps = (bracket.format(step) if isinstance(step, int) else f".{step}" for step in path[1:])
    return "".join(map(str, head)) + "".join(steps)
