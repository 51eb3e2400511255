"""Tools that are only offered: one that can't be served doesn't end the request."""

from dataclasses import replace

from falsework.server.errors import InvalidSchemaError
from falsework.server.generation.request import GenerationRequest
from falsework.server.observability import warn_client

TOOL_LEFT_OUT = "tool_left_out"
"""The code of the warning for a tool that the model isn't told of."""


def without_tool(request: GenerationRequest, error: InvalidSchemaError) -> GenerationRequest:
    """Return a request without the tool whose schema can't be served, and warn the client.

    Raise the error where the tool is needed, and where the fault is the client's own: a schema of
    its tool that is invalid, or strict.
    """
    bad = next((tool for tool in request.tools if tool.name == error.tool), None)
    if bad is None or bad.strict or not (bad.foreign or error.too_hard):
        raise error
    tools = tuple(tool for tool in request.tools if tool is not bad)
    choice = request.choice
    if choice.only is not None:
        choice = replace(choice, only=choice.only - {bad.name})
    if choice.mode == "required" and not choice.callable_tools(tools):
        raise error
    warn_client(TOOL_LEFT_OUT, f"{error.message} The tool is left out.", f"tools: {bad.name}")
    return replace(request, tools=tools, choice=choice)
