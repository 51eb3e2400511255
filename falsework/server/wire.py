"""The chat request as clients spell it; spellings that mean the same become one here.

Every field is honoured (`ChatRequest`), changes nothing here (`IGNORED`), or would change the
result and is refused by name (`REFUSED`). A field that nobody knows yet is accepted, and null
always means absent.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from falsework.server import filters
from falsework.server.refusals import BadRequest

IGNORED = frozenset(
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

REFUSED: Mapping[str, tuple[Any, str]] = {
    "add_generation_prompt": (True, "a reply always begins a new turn"),
    "allowed_token_ids": ([], "use response_format"),
    "audio": (None, "only text is spoken here"),
    "bad_words": ([], "use logit_bias"),
    "best_of": (1, "use n"),
    "chat_template": ("", "the dialect is the server's own"),
    "chat_template_kwargs": ({}, "use reasoning_effort to turn thinking on and off"),
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

CODES = {"missing": "missing_required_parameter", "custom": "invalid_value"}
"""Error codes by the kind of fault; a kind that ends in `_type` is `invalid_type`."""


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _several(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


def chosen_by_word(choice: object) -> object:
    """Spell a tool_choice of one word as an object."""
    return {"type": choice} if isinstance(choice, str) else choice


def _biases(biases: object) -> object:
    if not isinstance(biases, dict):
        return biases
    if not all(str(token).isdecimal() for token in biases):
        raise PydanticCustomError("custom", "Every key should be a token id")
    return {int(token): bias for token, bias in biases.items()}


class Wire(BaseModel):
    """An object of the protocol: strict about types, silent about fields it doesn't know."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Part(Wire):
    """A part of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Wire):
    """What an earlier call of the assistant said."""

    name: str
    arguments: str


class PastCall(Wire):
    """An earlier call of the assistant."""

    id: str
    type: str = "function"
    function: CalledFunction | None = None


class WireMessage(Wire):
    """A message of any role."""

    role: str
    content: Annotated[list[Part] | None, BeforeValidator(_parts)] = None
    name: str | None = None
    tool_calls: list[PastCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: dict[str, Any] | None = None


class FunctionDefinition(Wire):
    """A function as a client defines it; `strict` changes nothing: every schema is enforced."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class WireTool(Wire):
    """A tool as a client offers it, or one that the server runs (`mcp`, `server_tool`)."""

    type: str
    function: FunctionDefinition | None = None
    name: str | None = None
    server_label: str | None = None
    server_url: str | None = Field(default=None, pattern=r"^https?://[^/?#@\s]+(/|$)")
    authorization: str | None = Field(default=None, repr=False)
    headers: dict[str, str] | None = Field(default=None, repr=False)
    allowed_tools: filters.AllowedTools | None = None
    require_approval: filters.RequiredApproval | None = None


class FunctionName(Wire):
    """A function that is meant."""

    name: str


class ToolReference(Wire):
    """A tool that is meant."""

    type: str
    function: FunctionName | None = None


class AllowedTools(Wire):
    """The tools of which a reply may call some."""

    mode: str
    tools: list[ToolReference]


class WireToolChoice(Wire):
    """tool_choice, its one-word forms spelled as objects."""

    type: str
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


class SchemaFormat(Wire):
    """The schema that a reply's text must satisfy."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Wire):
    """What form a reply's text must have."""

    type: str
    json_schema: SchemaFormat | None = None


class StreamOptions(Wire):
    """What a stream tells beside the reply."""

    include_usage: bool | None = None


class ChatRequest(Wire):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: list[WireMessage] = Field(min_length=1)
    tools: list[WireTool] | None = None
    tool_choice: Annotated[WireToolChoice | None, BeforeValidator(chosen_by_word)] = None
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
    metadata: (
        dict[
            Annotated[str, Field(max_length=64)],
            Annotated[str, Field(max_length=512)],
        ]
        | None
    ) = Field(default=None, max_length=16)


def parse(body: bytes) -> ChatRequest:
    """Return the request that a body spells."""
    return parse_as(ChatRequest, body, REFUSED)


Spelled = TypeVar("Spelled", bound=Wire)


def parse_as(
    kind: type[Spelled],
    body: bytes | dict[str, Any],
    refused: Mapping[str, tuple[Any, str]],
    at: tuple[int | str, ...] = (),
) -> Spelled:
    """Return the object of that kind which a body spells; refuse it by the name of the field.

    `at` is where it stands in the request.
    """
    raw = _object(body) if isinstance(body, bytes) else body
    for name, (neutral, instead) in refused.items():
        if raw.get(name) not in (None, neutral):
            message = f"'{name}' isn't supported by this server: {instead}."
            raise BadRequest(message, name, "unsupported_parameter")
    try:
        return kind.model_validate(raw)
    except ValidationError as fault:
        raise _refusal(fault.errors(include_url=False)[0], at) from fault


def _object(body: bytes) -> dict[str, Any]:
    try:
        raw = from_json(body, allow_inf_nan=False)
    except ValueError as fault:
        raise BadRequest(f"The body of the request isn't valid JSON: {fault}.") from fault
    if not isinstance(raw, dict):
        raise BadRequest("The body of the request should be a JSON object.")
    return raw


def _refusal(fault: ErrorDetails, at: tuple[int | str, ...]) -> BadRequest:
    path = (*at, *fault["loc"])
    where = spell(path[:-2] if path[-1] == "[key]" else path)
    kind = fault["type"]
    code = "invalid_type" if kind.endswith("_type") else CODES.get(kind, "invalid_value")
    if kind == "missing":
        return BadRequest(f"Missing required parameter: '{where}'.", where, code)
    return BadRequest(f"Invalid '{where}': {fault['msg'][:500]}.", where, code)


def spell(path: tuple[int | str, ...]) -> str:
    """Return a path as OpenAI names parameters: `tools[0].type`, but `messages.[0].role`."""
    head = path[:1]
    bracket = ".[{}]" if head == ("messages",) else "[{}]"
    steps = (bracket.format(step) if isinstance(step, int) else f".{step}" for step in path[1:])
    return "".join(map(str, head)) + "".join(steps)
