"""`functions` and `function_call`, as clients wrote them before there were tools.

They are tools of the client's, at most one call a reply, and the reply says them the old way.
"""

from typing import Any

from falsework.server.api.chat import schema
from falsework.server.errors import BadRequestError
from falsework.server.types import Json


def with_tools(request: schema.ChatCompletionRequest) -> schema.ChatCompletionRequest:
    """Return a request with its functions as tools; raise BadRequestError where it has both."""
    if request.functions is None:
        if request.function_call is not None and request.function_call != "none":
            message = "'function_call' is only allowed when 'functions' are specified."
            raise BadRequestError(message, "function_call", "invalid_value")
        return request
    if request.tools:
        message = "'functions' can't stand beside 'tools', which have replaced them."
        raise BadRequestError(message, "functions", "invalid_value")
    tools = [schema.FunctionTool(type="function", function=one) for one in request.functions]
    choice = request.function_call
    changes: dict[str, Any] = {"tools": tools or None, "parallel_tool_calls": False}
    if isinstance(choice, schema.FunctionName):
        changes["tool_choice"] = schema.FunctionChoice(function=choice)
    elif choice is not None:
        changes["tool_choice"] = schema.ModeChoice(type=choice)
    return request.model_copy(update=changes)


def as_function_call(choice: Json) -> Json:
    """Return a choice, whole or of a chunk, that says its call the old way."""
    said = {**choice}
    for place in ("message", "delta"):
        if calls := said.get(place, {}).get("tool_calls"):
            rest = {key: value for key, value in said[place].items() if key != "tool_calls"}
            said[place] = {**rest, "function_call": calls[0]["function"]}
    if said["finish_reason"] == "tool_calls":
        said["finish_reason"] = "function_call"
    return said
