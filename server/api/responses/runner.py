"""How a response is made: lists of tools, approved calls, and the tool loop."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from falsework.server.api.responses.events import ResponseEventBuilder
from falsework.server.api.responses.messages import listed_servers, to_messages
from falsework.server.api.responses.state import ResponseParts, tool_listing
from falsework.server.generation import (
    ApprovalRequired,
    GenerationRequest,
    ToolCallsFinished,
    ToolCallsStarted,
    ToolLoop,
    TurnRunner,
)
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
) -> AsyncGenerator[list[Json]]:
    """Yield the events of a response between its first and its last, step by step.

    `save` stores what it has become so far, `save_approval` that an item waits for approval.
    """
    server_tools = parts.prepared.server_tools
    for label in dict.fromkeys(server_tools.labels.values()):
        if label not in listed_servers(parts.history):
            yield builder.list_tools(label, tool_listing(label, parts.prepared))
    loop = ToolLoop(
        runner,
        parts.run,
        parts.metrics,
        server_tools.names,
        server_tools.approval,
        can_ask=True,
        deadline=parts.deadline,
    )
    with loop.workflow_span():
        async for events in _run_approved(parts, builder, loop, save):
            yield events
        request = _after_approvals(parts, builder) if parts.approvals else parts.first_turn.request
        async with aclosing(loop.stream(request, parts.first_turn)) as steps:
            async for step in steps:
                events = builder.feed(step)
                if isinstance(step, ApprovalRequired):
                    for event in events:
                        if event["type"] == ITEM_ADDED:
                            await save_approval(event["item"])
                yield events
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
) -> AsyncGenerator[list[Json]]:
    """Run the calls that the client has approved; refuse those that it hasn't."""
    for answer in parts.approvals:
        call = answer.call
        yield builder.calls_started([call], {call.id: call.id})
        if answer.approved:
            results = await loop.run_calls([call], frozenset({call.id}))
        else:
            message = f"The user did not approve this call. {answer.reason}".strip()
            results = [call.result(error=ToolCallError("not_allowed", message))]
        yield builder.calls_finished(results)
        await save()
