"""A request for a response as a GenerationRequest; what is wrong is refused by its field's name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from falsework.grammars.tool_choice import ToolChoice
from falsework.server.api.common_schema import response_schema, sampling_params, think_budget
from falsework.server.api.responses.client_tools import CallName, client_tools
from falsework.server.api.responses.item_schema import ITEMS_WITH_TOOLS
from falsework.server.api.responses.messages import to_messages
from falsework.server.api.responses.schema import (
    INCLUDABLE,
    INCLUDE_LOGPROBS,
    TEXT_FORMATS,
    CreateResponseRequest,
    ResponseToolChoice,
    ResponseToolRef,
    SchemaFormat,
)
from falsework.server.api.responses.tool_schema import TOOLS
from falsework.server.api.server_tools import ServerTools, resolve_server_tools
from falsework.server.api.tool_choice import (
    FunctionRef,
    OfferedTools,
    any_tool,
    one_tool,
    refuse_left_out,
    some_tools,
)
from falsework.server.api.tools import build_tools, parse_tool_params
from falsework.server.api.validation import ParamPath, WireModel, validate
from falsework.server.errors import (
    MAX_QUOTED,
    BadRequestError,
    missing_parameter,
    unsupported_value,
)
from falsework.server.generation import GenerationRequest, ParamNames, ResponseSchema
from falsework.server.observability import warn_client
from falsework.server.settings import Settings
from falsework.server.tools import ToolRegistry
from falsework.server.types import Json

NOT_COMPACTED = "context_not_managed"
"""The code of the warning for a conversation that isn't shortened by itself."""

PARAMS = ParamNames("input", "max_output_tokens", "text.format.schema")
FORMAT = ("text", "format")
CHOICE_PARAM = "tool_choice"

TOOL_CHOICES = (
    *("allowed_tools", "apply_patch", "auto", "custom", "function", "local_shell", "mcp"),
    *("namespace", "none", "required", "shell", "tool_search"),
)


@dataclass(frozen=True)
class PreparedRequest:
    """What a response is made from."""

    generation: GenerationRequest
    server_tools: ServerTools
    calls: Mapping[str, CallName]
    """How calls of the client's tools are shown, by the names that the model knows."""


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
    if request.context_management:
        message = "This server compacts nothing by itself: use POST /v1/responses/compact."
        warn_client(NOT_COMPACTED, message, "context_management")
    given = [*_located_tools(request, before, items)]
    tool_params = [param for param, _ in given]
    server_tools = await resolve_server_tools(tool_params, registry, owner)
    own = [client_tools(tool, at) for tool, at in given]
    functions = [None if some is None else [tool.function for tool in some] for some in own]
    tools = build_tools(functions, server_tools.by_position, limits)
    calls = {tool.function.full_name: tool.call for some in own for tool in some or ()}
    names = server_tools.names | frozenset(registry.tools)
    effort = request.reasoning.effort if request.reasoning else None
    most = request.max_output_tokens or 0
    logprobs = INCLUDE_LOGPROBS in (request.include or ())
    generation = GenerationRequest(
        model=request.model,
        messages=to_messages(
            [*before, *items],
            request.instructions,
            names,
            len(before),
            limits.orphaned_results,
        ),
        tools=tools,
        choice=_tool_choice(
            request, OfferedTools.of(tools, tool_params), server_tools.labels, calls
        ),
        response_schema=_response_schema(request, limits),
        sampling=sampling_params(request, most, (request.top_logprobs or 0) if logprobs else None),
        think_budget=think_budget(effort, "reasoning.effort"),
        effort=effort,
        stream=bool(request.stream),
        limit=most,
        params=PARAMS,
    )
    return PreparedRequest(generation, server_tools, calls)


def _located_tools(
    request: CreateResponseRequest, before: Sequence[Json], items: Sequence[Json]
) -> Iterator[tuple[WireModel, ParamPath]]:
    """Yield the tools of a request and where each stands: some come with items of the input."""
    for i, tool in enumerate(parse_tool_params(request.tools or [], TOOLS)):
        yield tool, ("tools", i)
    for position, item in enumerate([*before, *items], -len(before)):
        if item.get("type") in ITEMS_WITH_TOOLS:
            where = ("previous_response_id",) if position < 0 else ("input", position)
            at = (*where, "tools")
            for i, tool in enumerate(parse_tool_params(item.get("tools") or [], TOOLS, at)):
                yield tool, (*at, i)


def _check(request: CreateResponseRequest) -> None:
    if request.truncation not in (None, "auto", "disabled"):
        message = "Invalid value: 'truncation' should be 'auto' or 'disabled'."
        raise BadRequestError(message, "truncation", "invalid_value")
    if unknown := set(request.include or ()) - INCLUDABLE:
        quoted = min(unknown)[:MAX_QUOTED]
        message = f"Invalid 'include': '{quoted}' isn't there to be included."
        raise BadRequestError(message, "include", "invalid_value")
    if request.background and request.store is False:
        raise BadRequestError("'background' needs 'store'.", "background", "invalid_value")
    if request.input is None and request.previous_response_id is None:
        raise missing_parameter("input")


def _tool_choice(
    request: CreateResponseRequest,
    offered: OfferedTools,
    labels: Mapping[str, str],
    calls: Mapping[str, CallName],
) -> ToolChoice:
    """Return what tool_choice means; `labels` are the MCP servers of tools."""
    parallel = request.parallel_tool_calls is not False
    choice = request.tool_choice or ResponseToolChoice(type="auto")
    if choice.type in offered.left_out:
        raise refuse_left_out(choice.type)
    match choice.type:
        case "auto" | "none" | "required":
            return any_tool(choice.type, offered, parallel=parallel)
        case "function" | "custom" | "apply_patch" | "local_shell" | "shell" | "tool_search":
            return one_tool(_named(choice, labels, calls, CHOICE_PARAM)[0], offered)
        case "mcp" | "namespace":
            named = _named(choice, labels, calls, CHOICE_PARAM)
            if len(named) == 1:
                return one_tool(named[0], offered)
            return some_tools("required", named, offered, CHOICE_PARAM, parallel=parallel)
        case "allowed_tools":
            named = [
                function
                for i, reference in enumerate(choice.tools or ())
                if reference.type not in offered.left_out
                for function in _named(reference, labels, calls, f"{CHOICE_PARAM}.tools[{i}]")
            ]
            mode = choice.mode or "auto"
            return some_tools(mode, named, offered, CHOICE_PARAM, parallel=parallel)
    raise unsupported_value(choice.type, TOOL_CHOICES, CHOICE_PARAM)


def _named(
    reference: ResponseToolRef,
    labels: Mapping[str, str],
    calls: Mapping[str, CallName],
    param: str,
) -> list[FunctionRef]:
    """Return the functions that a reference names: one, or all of an MCP server or a namespace."""
    name, label = reference.name, reference.server_label
    match reference.type:
        case "mcp":
            of_server = [tool for tool, server in labels.items() if server == label]
            names = [tool for tool in of_server if name in (None, tool.removeprefix(f"{label}__"))]
            return [FunctionRef(tool, param) for tool in names or [f"{label}__{name or '*'}"]]
        case "namespace":
            members = [full for full, call in calls.items() if call.namespace == name and name]
            return [FunctionRef(full, param) for full in members] or [FunctionRef(name, param)]
        case "function" | "custom" if name and name not in calls:
            spaces = {full: call.namespace for full, call in calls.items() if call.name == name}
            asked = [full for full, space in spaces.items() if reference.namespace in (None, space)]
            return [FunctionRef(asked[0] if len(asked) == 1 else name, param)]
        case "function" | "custom":
            return [FunctionRef(name, param)]
    return [FunctionRef(reference.type, param)]


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
