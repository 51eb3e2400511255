"""A request for a response as a GenerationRequest; what is wrong is refused by its field's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from falsework.grammars.events import Tool
from falsework.grammars.tool_choice import ToolChoice
from falsework.server.api.common_schema import response_schema, sampling_params, think_budget
from falsework.server.api.responses.messages import to_messages
from falsework.server.api.responses.schema import (
    INCLUDABLE,
    INCLUDE_LOGPROBS,
    TEXT_FORMATS,
    TOOLS,
    CreateResponseRequest,
    CustomTool,
    FunctionTool,
    ResponseToolChoice,
    ResponseToolRef,
    SchemaFormat,
)
from falsework.server.api.server_tools import ServerTools, resolve_server_tools
from falsework.server.api.tool_choice import FunctionRef, any_tool, one_tool, some_tools
from falsework.server.api.tools import (
    CustomText,
    FunctionDefinition,
    GrammarDefinition,
    build_tools,
    parse_tool_params,
)
from falsework.server.api.validation import WireModel, validate
from falsework.server.errors import (
    MAX_QUOTED,
    BadRequestError,
    missing_parameter,
    unsupported_value,
)
from falsework.server.generation import GenerationRequest, ParamNames, ResponseSchema
from falsework.server.settings import Settings
from falsework.server.tools import ToolRegistry
from falsework.server.types import Json

PARAMS = ParamNames(messages="input", schema="text.format.schema")
FORMAT = ("text", "format")
CHOICE_PARAM = "tool_choice"

TOOL_CHOICES = ("allowed_tools", "auto", "custom", "function", "mcp", "none", "required")


@dataclass(frozen=True)
class PreparedRequest:
    """What a response is made from."""

    generation: GenerationRequest
    server_tools: ServerTools


async def prepare_request(  # noqa: PLR0913 - here the parts of a request meet
    request: CreateResponseRequest,
    before: Sequence[Json],
    items: Sequence[Json],
    limits: Settings,
    registry: ToolRegistry,
    owner: str = "",
) -> PreparedRequest:
    """Return what a request asks of the model; raise BadRequestError.

    `before` are the items of the conversation so far, `items` those of the input.
    """
    _check(request)
    tool_params = parse_tool_params(request.tools or [], TOOLS)
    server_tools = await resolve_server_tools(tool_params, registry, owner)
    functions = [_definition(tool, i) for i, tool in enumerate(tool_params)]
    tools = build_tools(functions, server_tools.by_position, limits)
    names = server_tools.names | frozenset(registry.tools)
    effort = request.reasoning.effort if request.reasoning else None
    most = request.max_output_tokens or 0
    logprobs = INCLUDE_LOGPROBS in (request.include or ())
    generation = GenerationRequest(
        model=request.model,
        messages=to_messages([*before, *items], request.instructions, names, len(before)),
        tools=tools,
        choice=_tool_choice(request, tools, server_tools.labels),
        response_schema=_response_schema(request, limits),
        response_strict=_is_strict(request),
        sampling=sampling_params(request, most, (request.top_logprobs or 0) if logprobs else None),
        think_budget=think_budget(effort, "reasoning.effort"),
        effort=effort,
        stream=bool(request.stream),
        limit=most,
        params=PARAMS,
    )
    return PreparedRequest(generation, server_tools)


def _check(request: CreateResponseRequest) -> None:
    if request.truncation not in (None, "auto", "disabled"):
        message = "Invalid value: 'truncation' should be 'auto' or 'disabled'."
        raise BadRequestError(message, "truncation", "invalid_value")
    if request.truncation == "auto":
        message = "'truncation' can't be 'auto' here: send what fits the model."
        raise BadRequestError(message, "truncation", "unsupported_parameter")
    if unknown := set(request.include or ()) - INCLUDABLE:
        quoted = min(unknown)[:MAX_QUOTED]
        message = f"Invalid 'include': '{quoted}' isn't there to be included."
        raise BadRequestError(message, "include", "invalid_value")
    if request.background and request.store is False:
        raise BadRequestError("'background' needs 'store'.", "background", "invalid_value")
    if request.input is None and request.previous_response_id is None:
        raise missing_parameter("input")


def _is_strict(request: CreateResponseRequest) -> bool:
    form = request.text.format if request.text else None
    return form is not None and form.type == "json_schema" and bool(form.strict)


def _definition(tool: WireModel, position: int) -> FunctionDefinition | None:
    """Return a client's tool as a function; None for a tool that the server runs."""
    param = f"tools[{position}]"
    match tool:
        case FunctionTool():
            strict = bool(tool.strict)
            return FunctionDefinition(
                tool.name, tool.description, tool.parameters, param, strict=strict
            )
        case CustomTool():
            return FunctionDefinition(
                tool.name, tool.description, None, param, custom=_custom_text(tool, param)
            )
    return None


def _custom_text(tool: CustomTool, param: str) -> CustomText:
    if tool.format is None or tool.format.type == "text":
        return CustomText()
    for field in ("definition", "syntax"):
        if getattr(tool.format, field) is None:
            raise missing_parameter(f"{param}.format.{field}")
    grammar = GrammarDefinition(
        definition=tool.format.definition or "", syntax=tool.format.syntax or "lark"
    )
    return CustomText(grammar, f"{param}.format.definition")


def _tool_choice(
    request: CreateResponseRequest, tools: Sequence[Tool], labels: Mapping[str, str]
) -> ToolChoice:
    """Return what tool_choice means; `labels` are the MCP servers of tools."""
    parallel = request.parallel_tool_calls is not False
    choice = request.tool_choice or ResponseToolChoice(type="auto")
    match choice.type:
        case "auto" | "none" | "required":
            return any_tool(choice.type, tools, parallel=parallel)
        case "function" | "custom":
            return one_tool(FunctionRef(choice.name, CHOICE_PARAM), tools)
        case "mcp":
            named = _named(choice, labels, CHOICE_PARAM)
            if len(named) == 1:
                return one_tool(named[0], tools)
            return some_tools("required", named, tools, CHOICE_PARAM, parallel=parallel)
        case "allowed_tools":
            named = [
                function
                for i, reference in enumerate(choice.tools or ())
                for function in _named(reference, labels, f"{CHOICE_PARAM}.tools[{i}]")
            ]
            mode = choice.mode or "auto"
            return some_tools(mode, named, tools, CHOICE_PARAM, parallel=parallel)
    raise unsupported_value(choice.type, TOOL_CHOICES, CHOICE_PARAM)


def _named(reference: ResponseToolRef, labels: Mapping[str, str], param: str) -> list[FunctionRef]:
    """Return the functions that a reference names: one, or all tools of an MCP server."""
    name, label = reference.name, reference.server_label
    if reference.type != "mcp":
        return [FunctionRef(name, param)]
    of_server = [tool for tool, server in labels.items() if server == label]
    names = [tool for tool in of_server if name in (None, tool.removeprefix(f"{label}__"))]
    return [FunctionRef(tool, param) for tool in names or [f"{label}__{name or '*'}"]]


def _response_schema(request: CreateResponseRequest, limits: Settings) -> ResponseSchema:
    form = request.text.format if request.text else None
    if form is None:
        return None
    if form.type not in TEXT_FORMATS:
        raise unsupported_value(form.type, TEXT_FORMATS, "text.format.type")
    if form.type != "json_schema":
        return True if form.type == "json_object" else None
    schema = validate(SchemaFormat, form.model_dump(by_alias=True, exclude_none=True), FORMAT)
    return response_schema(schema.schema_, PARAMS.schema, limits)
