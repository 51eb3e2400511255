"""How a response is made: lists of tools, approved calls, and the tool loop."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from falsework.server.api.responses.events import ResponseEventBuilder
from falsework.server.api.responses.messages import listed_servers, to_messages
from falsework.server.api.responses.state import ResponseParts, tool_listing
from falsework.server.generation.request import GenerationRequest
from falsework.server.generation.tool_loop import (
    ApprovalRequired,
    ToolCallsFinished,
    ToolCallsStarted,
    ToolLoop,
)
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.tools.errors import ToolCallError
from falsework.server.types import Json

ITEM_ADDED = "response.output_item.added"

Save = Callable[[], Awaitable[None]]
SaveApproval = Callable[[Json], Awaitable[None]]


async def run_response(
    parts: ResponseParts,
    builder: ResponseEventBuilder,
    runner: TurnRunner,
    save: Save,
    save_approval: SaveApproval,
) -> AsyncGenerator[Json]:
    """Yield the events of a response between its first and its last.

    `save` stores what it has become so far, `save_approval` that an item waits for approval.
    """
    server_tools = parts.prepared.server_tools
    for label in dict.fromkeys(server_tools.labels.values()):
        if label not in listed_servers(parts.history):
            for event in builder.list_tools(label, tool_listing(label, parts.prepared)):
                yield event
    loop = ToolLoop(
        runner, parts.run, parts.metrics, server_tools.names, server_tools.approval, can_ask=True
    )
    with loop.workflow_span():
        async for event in _run_approved(parts, builder, loop, save):
            yield event
        request = _after_approvals(parts, builder) if parts.approvals else parts.first_turn.request
        async with aclosing(loop.stream(request, parts.first_turn)) as steps:
            async for step in steps:
                for event in builder.feed(step):
                    if isinstance(step, ApprovalRequired) and event["type"] == ITEM_ADDED:
                        await save_approval(event["item"])
                    yield event
                if isinstance(step, ToolCallsStarted | ToolCallsFinished):
                    await save()


def _after_approvals(parts: ResponseParts, builder: ResponseEventBuilder) -> GenerationRequest:
    """Return what the model is asked once it has the results of approved calls."""
    tools = parts.prepared.server_tools.names | set(parts.run.tools)
    items = [*parts.history, *builder.output]
    messages = to_messages(items, parts.request.instructions, tools)
    return replace(parts.prepared.generation, messages=messages)


async def _run_approved(
    parts: ResponseParts, builder: ResponseEventBuilder, loop: ToolLoop, save: Save
) -> AsyncGenerator[Json]:
    """Run the calls that the client has approved; refuse those that it hasn't."""
    for answer in parts.approvals:
        call = answer.call
        for event in builder.calls_started([call], {call.id: call.id}):
            yield event
        if answer.approved:
            results = await loop.run_calls([call], frozenset({call.id}))
        else:
            message = f"The user did not approve this call. {answer.reason}".strip()
            results = [call.result(fault=ToolCallError("not_allowed", message))]
        for event in builder.calls_finished(results):
            yield event
        await save()
