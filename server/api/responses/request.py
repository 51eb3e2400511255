"""A response's request, turned into the question that a chat request would be."""

from falsework.server.types import Json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from falsework.server.api.chat.request import GenerationRequest, to_generation_request
from falsework.server.api.chat.schema import ChatCompletionRequest, validate
from falsework.server.api.responses.messages import to_messages
from falsework.server.api.responses.schema import (
    INCLUDABLE,
    INCLUDE_LOGPROBS,
    CreateResponseRequest,
    CustomTool,
    ResponseToolChoice,
    ResponseToolRef,
)
from falsework.server.api.server_tools import ServerTools, resolve_server_tools
from falsework.server.errors import BadRequestError
from falsework.server.settings import Settings
from falsework.server.tools.registry import ToolRegistry


FREE_TEXT_SCHEMA: Json = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
TEXT_FORMAT_PARAM = "text.format.schema"


@dataclass(frozen=True)
class PreparedRequest:
    """What a response is to be made from."""

    question: GenerationRequest
    served: ServerTools


async def prepare_request(
    request: CreateResponseRequest,
    before: Sequence[Json],
    items: Sequence[Json],
    limits: Settings,
    toolbox: ToolRegistry,
) -> PreparedRequest:
    """Return the question; refuse what is wrong by the name of its field.

    `before` are the items of the conversation so far, `items` those of the input.
    """
    _check(request)
    ours = await resolve_server_tools(_as_chat(request, None).tools or [], toolbox)
    chat = _as_chat(request, _choice(request.tool_choice, ours.labels))
    with translate_error_params():
        question = to_generation_request(chat, limits, ours)
    tools = tuple(
        replace(tool, where=tool.where.replace(".function.", ".")) for tool in question.tools
    )
    names = ours.names | frozenset(toolbox.tools)
    messages = to_messages([*before, *items], request.instructions, names, len(before))
    return PreparedRequest(
        replace(question, messages=messages, tools=tools, response_schema_where=TEXT_FORMAT_PARAM),
        ours,
    )


def _check(request: CreateResponseRequest) -> None:
    if request.truncation not in (None, "auto", "disabled"):
        raise BadRequestError(
            "Invalid value: 'truncation' should be 'auto' or 'disabled'.",
            "truncation",
            "invalid_value",
        )
    if request.truncation == "auto":
        message = "'truncation' can't be 'auto' here: send what fits the model."
        raise BadRequestError(message, "truncation", "unsupported_parameter")
    if strangers := set(request.include or ()) - INCLUDABLE:
        message = f"Invalid 'include': '{min(strangers)[:100]}' isn't there to be included."
        raise BadRequestError(message, "include", "invalid_value")
    if request.background and request.store is False:
        raise BadRequestError("'background' needs 'store'.", "background", "invalid_value")
    if request.input is None and request.previous_response_id is None:
        raise BadRequestError(
            "Missing required parameter: 'input'.", "input", "missing_required_parameter"
        )


def _as_chat(request: CreateResponseRequest, choice: Json | None) -> ChatCompletionRequest:
    """Return the chat request that means the same, but for its messages."""
    logprobs = INCLUDE_LOGPROBS in (request.include or ())
    fields: Json = {
        "model": request.model,
        "messages": [{"role": "user", "content": "-"}],
        "tools": [_tool(tool, i) for i, tool in enumerate(request.tools or [])] or None,
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls,
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "logprobs": logprobs or None,
        "top_logprobs": request.top_logprobs if logprobs else None,
        "response_format": _format(request),
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
        "stream": request.stream,
        "metadata": request.metadata,
    }
    with translate_error_params():
        return validate(ChatCompletionRequest, fields, {})


def _tool(tool: Json, position: int) -> Json:
    kind = tool.get("type")
    if not isinstance(kind, str):
        missing = f"tools[{position}].type"
        message = f"Missing required parameter: '{missing}'."
        raise BadRequestError(message, missing, "missing_required_parameter")
    if kind == "custom":
        return _custom(tool, position)
    if kind != "function":
        return tool
    inner = {
        key: tool[key] for key in ("name", "description", "parameters", "strict") if key in tool
    }
    return {"type": "function", "function": inner}


def _custom(tool: Json, position: int) -> Json:
    """Return a custom tool of free text as a function with that text as its one argument."""
    form = validate(CustomTool, tool, {}, ("tools", position)).format
    if form and form.type != "text":
        message = "Custom tools take free text here: leave 'format' out."
        raise BadRequestError(message, f"tools[{position}].format", "unsupported_parameter")
    inner = {key: tool[key] for key in ("name", "description") if key in tool}
    return {"type": "function", "function": {**inner, "parameters": FREE_TEXT_SCHEMA}}


def _choice(choice: ResponseToolChoice | None, labels: Mapping[str, str]) -> Json | None:
    """Return a tool_choice as chat spells it; `labels` are the MCP servers of tools."""
    if choice is None:
        return None
    if choice.type not in CHOICES_THAT_NAME_TOOLS:
        return {"type": choice.type}
    if choice.type == "allowed_tools":
        tools = [each for one in choice.tools or [] for each in _named(one, labels)]
        mode = choice.mode or "auto"
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
    named = _named(choice, labels)
    if len(named) == 1:
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": named}}


CHOICES_THAT_NAME_TOOLS = frozenset({"allowed_tools", "custom", "function", "mcp"})
"""Kinds of tool_choice that name tools."""


def _named(reference: ResponseToolRef, labels: Mapping[str, str]) -> list[Json]:
    """Return the functions that a reference names: one, or all tools of an MCP server."""
    name, label = reference.name, reference.server_label
    names = [name]
    if reference.type == "mcp":
        there = [tool for tool, of in labels.items() if of == label]
        names = [tool for tool in there if name in (None, tool.removeprefix(f"{label}__"))]
        names = names or [f"{label}__{name}"]
    return [{"type": "function", "function": {"name": each}} for each in names]


def _format(request: CreateResponseRequest) -> Mapping[str, Any] | None:
    form = request.text.format if request.text else None
    if form is None:
        return None
    if form.type != "json_schema":
        return {"type": form.type}
    schema = {"name": form.name, "schema": form.schema_, "strict": form.strict}
    return {"type": "json_schema", "json_schema": schema}


PARAM_NAMES = (
    (".function.", "."),
    (".function", ""),
    ("response_format.json_schema.", "text.format."),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    ("max_completion_tokens", "max_output_tokens"),
    ("messages", "input"),
)
"""The fields of a chat request, and what they are called here."""


@contextmanager
def translate_error_params() -> Iterator[None]:
    """Refuse by the names that fields have here."""
    try:
        yield
    except BadRequestError as refusal:
        for chat, here in PARAM_NAMES:
            if refusal.param and chat in refusal.param:
                refusal.param = refusal.param.replace(chat, here)
                refusal.message = refusal.message.replace(chat, here)
        raise
