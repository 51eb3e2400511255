"""A chat request as a GenerationRequest; what is wrong is refused by the name of its field."""

from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.reasoning_switches import THINK_SWITCHES
from falsework.server.api.chat import schema
from falsework.server.api.chat.legacy_functions import with_tools
from falsework.server.api.chat.messages import parse_messages
from falsework.server.api.chat.structured_outputs import TextForm, one_form_only, text_form
from falsework.server.api.common_schema import response_schema, sampling_params, think_budget
from falsework.server.api.server_tools import NO_SERVER_TOOLS, ServerTools
from falsework.server.api.tool_choice import (
    FunctionRef,
    OfferedTools,
    any_tool,
    one_tool,
    some_tools,
)
from falsework.server.api.tools import (
    CustomText,
    FunctionDefinition,
    LeftOutTool,
    build_tools,
)
from falsework.server.api.validation import WireModel
from falsework.server.engines import SamplingParams
from falsework.server.errors import BadRequestError, missing_parameter
from falsework.server.generation import TOOL_LEFT_OUT, GenerationRequest, ParamNames
from falsework.server.observability import warn_client
from falsework.server.settings import Settings

CHOICE_PARAM = "tool_choice"
EFFORT_PARAM = "reasoning.effort"
ANY_TOOL = schema.ModeChoice(type="auto")


def to_generation_request(
    request: schema.ChatCompletionRequest,
    limits: Settings,
    server_tools: ServerTools = NO_SERVER_TOOLS,
) -> GenerationRequest:
    """Return what a request asks of the model; raise BadRequestError."""
    _check_lengths(request, limits)
    request = with_tools(request)
    if request.web_search_options is not None:
        message = "This server can't search the web: 'web_search_options' is left out."
        warn_client(TOOL_LEFT_OUT, message, "web_search_options")
    param = "tools" if request.functions is None else "functions"
    functions = [_definitions(tool, f"{param}[{i}]") for i, tool in enumerate(request.tools or ())]
    tools = build_tools(functions, server_tools.by_position, limits)
    if server_tools.by_position and (request.n or 1) > 1:
        message = "'n' has to be 1 where the server runs tools: each choice would run them."
        raise BadRequestError(message, "n", "invalid_value")
    choice = _tool_choice(request, OfferedTools.of(tools, request.tools or ()))
    form = _text_form(request, limits, can_call=bool(choice.callable_tools(tools)))
    return GenerationRequest(
        model=request.model,
        messages=parse_messages(request.messages, limits.orphaned_results),
        tools=tools,
        choice=choice,
        response_schema=form.schema,
        response_strict=_is_strict(request),
        text_grammar=form.grammar,
        sampling=_sampling(request),
        stop=tuple(request.stop or ()),
        think_budget=_think_budget(request),
        effort=_effort(request),
        template_switches=request.chat_template_kwargs or {},
        stream=bool(request.stream),
        include_usage=_include_usage(request),
        legacy_functions=request.functions is not None,
        named=isinstance(request.tool_choice, schema.FunctionChoice | schema.CustomChoice),
        metadata=request.metadata,
        limit=_max_tokens(request),
        params=ParamNames(schema=form.param),
    )


def _definitions(tool: WireModel, param: str) -> list[FunctionDefinition] | None:
    """Return a client's tool as a function; None for a tool that the server runs."""
    match tool:
        case schema.FunctionTool(function=one):
            strict = bool(one.strict)
            where = f"{param}.function" if param.startswith("tools") else param
            return [
                FunctionDefinition(one.name, one.description, one.parameters, where, strict=strict)
            ]
        case schema.CustomTool(custom=one):
            text = _custom_text(one.format, f"{param}.custom.format.grammar")
            where = f"{param}.custom"
            return [FunctionDefinition(one.name, one.description, None, where, custom=text)]
        case LeftOutTool():
            return []
    return None


def _custom_text(form: schema.CustomFormat | None, param: str) -> CustomText:
    if form is None or form.type == "text":
        return CustomText()
    if form.grammar is None:
        raise missing_parameter(param)
    return CustomText(form.grammar, f"{param}.definition")


def _check_lengths(request: schema.ChatCompletionRequest, limits: Settings) -> None:
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


def _tool_choice(request: schema.ChatCompletionRequest, tools: OfferedTools) -> ToolChoice:
    parallel = request.parallel_tool_calls is not False
    match request.tool_choice or ANY_TOOL:
        case schema.FunctionChoice(function=named) | schema.CustomChoice(custom=named):
            return one_tool(FunctionRef(named.name if named else None, CHOICE_PARAM), tools)
        case schema.AllowedToolsChoice(allowed_tools=allowed):
            param = f"{CHOICE_PARAM}.allowed_tools"
            references = [
                FunctionRef(_function_name(tool), f"{param}.tools[{i}]")
                for i, tool in enumerate(allowed.tools if allowed else ())
                if tool.type not in tools.left_out
            ]
            mode = allowed.mode if allowed else "auto"
            return some_tools(mode, references, tools, param, parallel=parallel)
        case schema.ModeChoice(type=mode):
            return any_tool(mode, tools, parallel=parallel)
    raise AssertionError("every kind of tool_choice has its case")


def _function_name(tool: schema.ToolRef) -> str | None:
    named = {"custom": tool.custom, "function": tool.function}.get(tool.type)
    return named.name if named else None


def _text_form(
    request: schema.ChatCompletionRequest, limits: Settings, *, can_call: bool
) -> TextForm:
    """Return the form of the reply's text, whichever field asks for it."""
    openai = _response_format(request, limits)
    form = text_form(request, limits)
    if form is None:
        return openai
    if openai.schema is not None:
        raise one_form_only("response_format", form.param)
    if form.grammar and can_call:
        message = f"'{form.param}' can't stand beside tools that may be called: a grammar's text "
        message += "may be spelled like a call. Set 'tool_choice' to 'none'."
        raise BadRequestError(message, form.param, "invalid_value")
    return form


def _response_format(request: schema.ChatCompletionRequest, limits: Settings) -> TextForm:
    param = ParamNames().schema
    match request.response_format:
        case schema.SchemaFormat(json_schema=form):
            return TextForm(param, response_schema(form.schema_, param, limits))
        case schema.TextFormat(type="json_object") as form:
            given = "response_format.schema" if form.schema_ else "response_format.value"
            return TextForm(given, response_schema(form.schema_ or form.value, given, limits))
    return TextForm(param)


def _is_strict(request: schema.ChatCompletionRequest) -> bool:
    form = request.response_format
    return isinstance(form, schema.SchemaFormat) and bool(form.json_schema.strict)


def _sampling(request: schema.ChatCompletionRequest) -> SamplingParams:
    return sampling_params(
        request,
        _max_tokens(request),
        _logprobs(request),
        n=request.n,
        top_k=max(request.top_k or 0, 0),
        min_p=request.min_p,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=request.logit_bias,
    )


def _max_tokens(request: schema.ChatCompletionRequest) -> int:
    given = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(given) > 1:
        raise BadRequestError(
            "'max_tokens' and 'max_completion_tokens' are two names of one limit, and here they "
            "differ. 'max_tokens' is deprecated: leave it out.",
            "max_tokens",
            "invalid_value",
        )
    return request.max_completion_tokens or request.max_tokens or 0


def _logprobs(request: schema.ChatCompletionRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise BadRequestError(
            "'top_logprobs' is only allowed when 'logprobs' is true.",
            "top_logprobs",
            "invalid_value",
        )
    return None


def _effort(request: schema.ChatCompletionRequest) -> str | None:
    nested = request.reasoning.effort if request.reasoning else None
    return request.reasoning_effort or nested


def _think_budget(request: schema.ChatCompletionRequest) -> int | None:
    """Return the tokens of the think block by effort and switches; None leaves it to the server."""
    effort, switches = _effort(request), request.chat_template_kwargs or {}
    switched = {
        param: switches[name]
        for name in THINK_SWITCHES
        if isinstance(switches.get(name), bool) and (param := "chat_template_kwargs")
    }
    if request.enable_thinking is not None:
        switched["enable_thinking"] = request.enable_thinking
    if request.thinking and request.thinking.type != "auto":
        switched["thinking"] = request.thinking.type == "enabled"
    if request.reasoning and request.reasoning.enabled is not None:
        switched["reasoning.enabled"] = request.reasoning.enabled
    if len(set(switched.values()) | ({effort != "none"} if effort else set())) > 1:
        param = next(iter(switched))
        message = f"'{param}' turns thinking on where another field turns it off."
        raise BadRequestError(message, param, "invalid_value")
    if effort is None and False in switched.values():
        return 0
    tokens = request.reasoning.max_tokens if request.reasoning else None
    given = request.thinking_budget if tokens is None else tokens
    if effort is None and given is not None:
        return given
    return think_budget(effort, "reasoning_effort" if request.reasoning_effort else EFFORT_PARAM)


def _include_usage(request: schema.ChatCompletionRequest) -> bool:
    if request.stream_options is None:
        return False
    if not request.stream:
        raise BadRequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
        )
    return bool(request.stream_options.include_usage)
