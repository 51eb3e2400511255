"""A request for a message as a GenerationRequest; what is wrong is refused by its field's name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from falsework.grammars.tool_choice import ToolChoice
from falsework.server.api.common_schema import LEAST_TOP_P, response_schema, think_budget
from falsework.server.api.messages import schema
from falsework.server.api.messages.history import parse_messages
from falsework.server.api.tool_choice import FunctionRef, OfferedTools, any_tool, one_tool
from falsework.server.api.tools import FunctionDefinition, LeftOutTool, build_tools
from falsework.server.api.validation import WireModel
from falsework.server.engines import SamplingParams
from falsework.server.errors import BadRequestError
from falsework.server.generation import TOOL_LEFT_OUT, GenerationRequest, ParamNames
from falsework.server.observability import warn_client
from falsework.server.settings import Settings
from falsework.server.types import Json

BASH: Json = {
    "type": "object",
    "properties": {
        "command": {"type": "string", "description": "The command to run."},
        "restart": {"type": "boolean", "description": "Restart the shell."},
    },
    "additionalProperties": False,
}
TEXT_EDITOR: Json = {
    "type": "object",
    "properties": {
        "command": {"enum": ["view", "create", "str_replace", "insert"]},
        "path": {"type": "string"},
        "file_text": {"type": "string", "description": "The new file's text, of create."},
        "old_str": {"type": "string", "description": "What str_replace replaces: found once."},
        "new_str": {"type": "string", "description": "What str_replace puts in its place."},
        "insert_line": {"type": "integer", "minimum": 0, "description": "insert goes behind it."},
        "insert_text": {"type": "string", "description": "What insert inserts."},
        "view_range": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
    },
    "required": ["command", "path"],
    "additionalProperties": False,
}
BUILT_IN: Mapping[str, tuple[str, Json]] = {
    "bash": ("Runs a command in the user's shell.", BASH),
    "text_editor": ("Views, creates and edits the user's files.", TEXT_EDITOR),
}
"""Description and schema of tools that the client runs, by the beginning of their type."""


def to_generation_request(
    request: schema.CountTokensRequest, limits: Settings
) -> GenerationRequest:
    """Return what a request asks of the model; raise BadRequestError."""
    if len(request.messages) > limits.max_messages:
        message = f"Invalid 'messages': more than the {limits.max_messages} that are allowed."
        raise BadRequestError(message, "messages", "array_above_max_length")
    if request.mcp_servers:
        message = "This server doesn't connect to the 'mcp_servers' of a request: left out."
        warn_client(TOOL_LEFT_OUT, message, "mcp_servers")
    given = request.tools or ()
    functions = [_definitions(tool, f"tools[{i}]") for i, tool in enumerate(given)]
    tools = build_tools(functions, {}, limits)
    effort = request.output_config.effort if request.output_config else None
    param, form = _format(request)
    counted = GenerationRequest(
        model=request.model,
        messages=parse_messages(request.messages, request.system, limits.orphaned_results),
        tools=tools,
        choice=_tool_choice(request, OfferedTools.of(tools, given)),
        response_schema=response_schema(form.schema_, param, limits) if form else None,
        think_budget=_think_budget(request.thinking, effort),
        effort=effort,
        named=isinstance(request.tool_choice, schema.ToolChoice),
        params=ParamNames(schema=param),
    )
    if not isinstance(request, schema.CreateMessageRequest):
        return counted
    return replace(
        counted,
        sampling=_sampling(request),
        stop=tuple(request.stop_sequences or ()),
        stream=bool(request.stream),
        limit=request.max_tokens,
    )


def _definitions(tool: WireModel, param: str) -> list[FunctionDefinition]:
    match tool:
        case schema.CustomTool():
            return [
                FunctionDefinition(
                    tool.name,
                    tool.description,
                    tool.input_schema,
                    param,
                    strict=bool(tool.strict),
                    schema_field="input_schema",
                )
            ]
        case schema.BuiltInTool():
            described = next(value for key, value in BUILT_IN.items() if tool.type.startswith(key))
            return [FunctionDefinition(tool.name, *described, param)]
        case LeftOutTool():
            return []
    raise AssertionError("every kind of tool has its case")


def _tool_choice(request: schema.CountTokensRequest, offered: OfferedTools) -> ToolChoice:
    choice = request.tool_choice or schema.AnyChoice(type="auto")
    match choice:
        case schema.ToolChoice(name=name):
            return one_tool(FunctionRef(name, "tool_choice.name"), offered)
        case schema.AnyChoice(type=kind):
            mode = "required" if kind == "any" else kind
            parallel = not choice.disable_parallel_tool_use
            return any_tool(mode, offered, parallel=parallel)
    raise AssertionError("every kind of tool_choice has its case")


def _format(request: schema.CountTokensRequest) -> tuple[str, schema.OutputFormat | None]:
    """Return the form of the text, and the field that asks for it."""
    if request.output_config and request.output_config.format:
        return "output_config.format.schema", request.output_config.format
    return "output_format.schema", request.output_format


def _sampling(request: schema.CreateMessageRequest) -> SamplingParams:
    given: dict[str, Any] = {
        "temperature": request.temperature,
        "top_p": None if request.top_p is None else max(request.top_p, LEAST_TOP_P),
        "top_k": request.top_k,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return SamplingParams(max_tokens=request.max_tokens, **chosen)


def _think_budget(thinking: schema.ThinkingParam | None, effort: str | None) -> int | None:
    """Return the tokens of the think block: none unless the client asks for thinking."""
    if thinking is None or thinking.type == "disabled":
        return 0
    if thinking.budget_tokens:
        return thinking.budget_tokens
    return think_budget(effort, "output_config.effort")
