"""A response's request, turned into the question that a chat request would be."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from falsework.runtime.toolbox import Toolbox
from falsework.server.questions import Question, ask
from falsework.server.refusals import BadRequest
from falsework.server.responses.items import conversation
from falsework.server.responses.wire import (
    INCLUDABLE,
    LOGPROBS,
    CustomTool,
    ResponseRequest,
    ToolChosen,
    ToolMeant,
)
from falsework.server.served import Served, served
from falsework.server.settings import Settings
from falsework.server.wire import ChatRequest, parse_as

Json = dict[str, Any]

FREE_TEXT: Json = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
FORMAT_WHERE = "text.format.schema"


@dataclass(frozen=True)
class Wanted:
    """What a response is to be made from."""

    question: Question
    served: Served


async def wanted(
    request: ResponseRequest,
    before: Sequence[Json],
    items: Sequence[Json],
    limits: Settings,
    toolbox: Toolbox,
) -> Wanted:
    """Return the question; refuse what is wrong by the name of its field.

    `before` are the items of the conversation so far, `items` those of the input.
    """
    _check(request)
    ours = await served(_as_chat(request, None).tools or [], toolbox)
    chat = _as_chat(request, _choice(request.tool_choice, ours.labels))
    with respelled():
        question = ask(chat, limits, ours)
    tools = tuple(
        replace(tool, where=tool.where.replace(".function.", ".")) for tool in question.tools
    )
    names = ours.names | frozenset(toolbox.tools)
    messages = conversation([*before, *items], request.instructions, names, len(before))
    return Wanted(
        replace(question, messages=messages, tools=tools, response_schema_where=FORMAT_WHERE), ours
    )


def _check(request: ResponseRequest) -> None:
    if request.truncation not in (None, "auto", "disabled"):
        raise BadRequest(
            "Invalid value: 'truncation' should be 'auto' or 'disabled'.",
            "truncation",
            "invalid_value",
        )
    if request.truncation == "auto":
        message = "'truncation' can't be 'auto' here: send what fits the model."
        raise BadRequest(message, "truncation", "unsupported_parameter")
    if strangers := set(request.include or ()) - INCLUDABLE:
        message = f"Invalid 'include': '{min(strangers)[:100]}' isn't there to be included."
        raise BadRequest(message, "include", "invalid_value")
    if request.background and request.store is False:
        raise BadRequest("'background' needs 'store'.", "background", "invalid_value")
    if request.input is None and request.previous_response_id is None:
        raise BadRequest(
            "Missing required parameter: 'input'.", "input", "missing_required_parameter"
        )


def _as_chat(request: ResponseRequest, choice: Json | None) -> ChatRequest:
    """Return the chat request that means the same, but for its messages."""
    logprobs = LOGPROBS in (request.include or ())
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
    with respelled():
        return parse_as(ChatRequest, fields, {})


def _tool(tool: Json, position: int) -> Json:
    kind = tool.get("type")
    if not isinstance(kind, str):
        missing = f"tools[{position}].type"
        message = f"Missing required parameter: '{missing}'."
        raise BadRequest(message, missing, "missing_required_parameter")
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
    form = parse_as(CustomTool, tool, {}, ("tools", position)).format
    if form and form.type != "text":
        message = "Custom tools take free text here: leave 'format' out."
        raise BadRequest(message, f"tools[{position}].format", "unsupported_parameter")
    inner = {key: tool[key] for key in ("name", "description") if key in tool}
    return {"type": "function", "function": {**inner, "parameters": FREE_TEXT}}


def _choice(choice: ToolChosen | None, labels: Mapping[str, str]) -> Json | None:
    """Return a tool_choice as chat spells it; `labels` are the MCP servers of tools."""
    if choice is None:
        return None
    if choice.type not in NAMING:
        return {"type": choice.type}
    if choice.type == "allowed_tools":
        tools = [each for one in choice.tools or [] for each in _named(one, labels)]
        mode = choice.mode or "auto"
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
    named = _named(choice, labels)
    if len(named) == 1:
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": named}}


NAMING = frozenset({"allowed_tools", "custom", "function", "mcp"})
"""Kinds of tool_choice that name tools."""


def _named(reference: ToolMeant, labels: Mapping[str, str]) -> list[Json]:
    """Return the functions that a reference names: one, or all tools of an MCP server."""
    name, label = reference.name, reference.server_label
    names = [name]
    if reference.type == "mcp":
        there = [tool for tool, of in labels.items() if of == label]
        names = [tool for tool in there if name in (None, tool.removeprefix(f"{label}__"))]
        names = names or [f"{label}__{name}"]
    return [{"type": "function", "function": {"name": each}} for each in names]


def _format(request: ResponseRequest) -> Mapping[str, Any] | None:
    form = request.text.format if request.text else None
    if form is None:
        return None
    if form.type != "json_schema":
        return {"type": form.type}
    schema = {"name": form.name, "schema": form.schema_, "strict": form.strict}
    return {"type": "json_schema", "json_schema": schema}


RESPELLED = (
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
def respelled() -> Iterator[None]:
    """Refuse by the names that fields have here."""
    try:
        yield
    except BadRequest as refusal:
        for chat, here in RESPELLED:
            if refusal.param and chat in refusal.param:
                refusal.param = refusal.param.replace(chat, here)
                refusal.message = refusal.message.replace(chat, here)
        raise
