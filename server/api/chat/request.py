"""A request with every refusal behind it: what is asked, in the rooms' own nouns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from falsework.grammars.events import Tool
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.messages import Message
from falsework.prompts.reasoning_switches import THINK_SWITCHES
from falsework.server.api.chat.messages import parse_messages
from falsework.server.api.chat.schema import ChatCompletionRequest, ResponseFormat
from falsework.server.api.chat.tools import check_schema_size, parse_tool_choice, parse_tools
from falsework.server.api.server_tools import NO_SERVER_TOOLS, ServerTools
from falsework.server.engines.base import SamplingParams
from falsework.server.errors import BadRequestError
from falsework.server.settings import Settings

REASONING_EFFORT_TOKENS: Mapping[str, int | None] = {
    "none": 0,
    "minimal": 128,
    "low": 512,
    "medium": None,
    "high": 4096,
    "xhigh": 8192,
    "max": 16384,
}
"""reasoning_effort in tokens of the think block; None is the server's own budget."""

SCHEMA_PARAM = "response_format.json_schema.schema"

_NO_CALLS = ToolChoice("none")
_AS_THE_SERVER_LIKES = SamplingParams(max_tokens=0)

ResponseSchema = Mapping[str, Any] | bool | None


@dataclass(frozen=True)
class GenerationRequest:
    """What a client asks.

    `response_schema` is None for text, True for any JSON object, otherwise the schema of the text.
    `sampling.max_tokens` is 0 and `think_budget` None where the client leaves them to the server.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = _NO_CALLS
    response_schema: ResponseSchema = None
    response_schema_where: str = SCHEMA_PARAM
    sampling: SamplingParams = _AS_THE_SERVER_LIKES
    stop: tuple[str, ...] = ()
    think_budget: int | None = None
    effort: str | None = None
    """The reasoning_effort that the client gave, by which `think_budget` was chosen."""
    template_switches: Mapping[str, Any] = field(default_factory=dict)
    """The chat_template_kwargs that the client gave."""
    stream: bool = False
    include_usage: bool = False
    named: bool = False
    """tool_choice named one function: its call is the whole reply, so `stop` ends it."""
    metadata: Mapping[str, str] | None = None
    limit: int = 0
    """The tokens that all turns of the model may take together; 0 is no limit."""

    @property
    def can_call(self) -> bool:
        """Whether the reply may hold a call."""
        return bool(self.choice.callable_tools(self.tools))


def to_generation_request(
    request: ChatCompletionRequest, limits: Settings, served: ServerTools = NO_SERVER_TOOLS
) -> GenerationRequest:
    """Return the question of a request, or refuse it by the name of the field at fault."""
    _check_lengths(request, limits)
    tools = parse_tools(request.tools or [], limits, served)
    if served.by_position and (request.n or 1) > 1:
        message = "'n' has to be 1 where the server runs tools: each choice would run them."
        raise BadRequestError(message, "n", "invalid_value")
    parallel = request.parallel_tool_calls is not False
    return GenerationRequest(
        model=request.model,
        messages=parse_messages(request.messages),
        tools=tools,
        choice=parse_tool_choice(request.tool_choice, tools, parallel=parallel),
        response_schema=_response_schema(request.response_format, limits),
        sampling=_sampling(request),
        stop=tuple(request.stop or ()),
        think_budget=_think_budget(request.reasoning_effort, request.chat_template_kwargs or {}),
        effort=request.reasoning_effort,
        template_switches=request.chat_template_kwargs or {},
        stream=bool(request.stream),
        include_usage=_include_usage(request),
        named=request.tool_choice is not None and request.tool_choice.type == "function",
        metadata=request.metadata,
        limit=_max_tokens(request),
    )


def _check_lengths(request: ChatCompletionRequest, limits: Settings) -> None:
    if len(request.messages) > limits.max_messages:
        raise BadRequestError(
            f"Invalid 'messages': array too long. Expected an array with maximum length "
            f"{limits.max_messages}, but got an array with length {len(request.messages)} instead.",
            "messages",
            "array_above_max_length",
        )
    if (request.n or 1) > limits.max_choices:
        raise BadRequestError(
            f"Invalid 'n': this server gives at most {limits.max_choices} choices.",
            "n",
            "integer_above_max_value",
        )


def _sampling(request: ChatCompletionRequest) -> SamplingParams:
    fields = ("n", "temperature", "top_p", "min_p", "seed", "logit_bias")
    penalties = ("frequency_penalty", "presence_penalty", "repetition_penalty")
    given = {
        name: value for name in fields + penalties if (value := getattr(request, name)) is not None
    }
    return SamplingParams(
        max_tokens=_max_tokens(request),
        top_k=max(request.top_k or 0, 0),
        logprobs=_logprobs(request),
        **given,
    )


def _max_tokens(request: ChatCompletionRequest) -> int:
    given = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(given) > 1:
        raise BadRequestError(
            "'max_tokens' and 'max_completion_tokens' are two names of one limit, and here they "
            "differ. 'max_tokens' is deprecated: leave it out.",
            "max_tokens",
            "invalid_value",
        )
    return request.max_completion_tokens or request.max_tokens or 0


def _logprobs(request: ChatCompletionRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise BadRequestError(
            "'top_logprobs' is only allowed when 'logprobs' is true.",
            "top_logprobs",
            "invalid_value",
        )
    return None


def _think_budget(effort: str | None, switches: Mapping[str, Any]) -> int | None:
    switched = {switches[name] for name in THINK_SWITCHES if isinstance(switches.get(name), bool)}
    if len(switched | ({effort != "none"} if effort else set())) > 1:
        raise BadRequestError(
            "'chat_template_kwargs' turns thinking on where another field turns it off.",
            "chat_template_kwargs",
            "invalid_value",
        )
    if effort is None:
        return 0 if False in switched else None
    if effort not in REASONING_EFFORT_TOKENS:
        known = ", ".join(f"'{name}'" for name in REASONING_EFFORT_TOKENS)
        raise BadRequestError(
            f"Invalid value: '{effort[:100]}'. Supported values are: {known}.",
            "reasoning_effort",
            "invalid_value",
        )
    return REASONING_EFFORT_TOKENS[effort]


def _include_usage(request: ChatCompletionRequest) -> bool:
    if request.stream_options is None:
        return False
    if not request.stream:
        raise BadRequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
        )
    return bool(request.stream_options.include_usage)


def _response_schema(form: ResponseFormat | None, limits: Settings) -> ResponseSchema:
    if form is None:
        return None
    if form.type not in RESPONSE_FORMATS:
        known = ", ".join(f"'{name}'" for name in RESPONSE_FORMATS)
        raise BadRequestError(
            f"Invalid value: '{form.type[:100]}'. Supported values are: {known}.",
            "response_format.type",
            "invalid_value",
        )
    return RESPONSE_FORMATS[form.type](form, limits)


def _text(_: ResponseFormat, __: Settings) -> ResponseSchema:
    return None


def _any_object(_: ResponseFormat, __: Settings) -> ResponseSchema:
    return True


def _schema(form: ResponseFormat, limits: Settings) -> ResponseSchema:
    if form.json_schema is None:
        raise BadRequestError(
            "Missing required parameter: 'response_format.json_schema'.",
            "response_format.json_schema",
            "missing_required_parameter",
        )
    schema = form.json_schema.schema_
    if not schema:
        return True
    check_schema_size(schema, SCHEMA_PARAM, limits, "invalid_json_schema")
    return schema


RESPONSE_FORMATS: Mapping[str, Callable[[ResponseFormat, Settings], ResponseSchema]] = {
    "json_object": _any_object,
    "json_schema": _schema,
    "text": _text,
}
