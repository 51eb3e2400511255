"""How a response is made: lists, approved calls, the model's turns and the calls between them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace

from falsework.server.api.chat.objects import Json, Usage
from falsework.server.api.chat.request import GenerationRequest
from falsework.server.api.responses.messages import listed_servers, to_messages
from falsework.server.api.responses.request import translate_error_params
from falsework.server.api.responses.state import InProgressResponse, tool_listing
from falsework.server.generation.choice import ChoiceDelta
from falsework.server.generation.tool_loop import (
    ApprovalRequired,
    DeadlineExceeded,
    LoopEvent,
    ToolCallsFinished,
    ToolCallsStarted,
    ToolLoop,
)
from falsework.server.generation.turn_runner import TurnRunner
from falsework.server.tools.errors import ToolCallError
from falsework.server.tools.results import ToolResult
from falsework.server.tools.tool_call import ToolCall

SaveProgress = Callable[[InProgressResponse], Awaitable[None]]
SaveApproval = Callable[[InProgressResponse, Json], Awaitable[None]]


async def run_response(
    live: InProgressResponse, chat: TurnRunner, keep: SaveProgress, ask: SaveApproval
) -> AsyncGenerator[Json]:
    """Tell what a response says between its beginning and its end.

    `keep` keeps what it has become so far, `ask` that an item waits for approval.
    """
    for event in _listings(live):
        yield event
    names = live.want.served.names
    rounds = ToolLoop(chat, live.run, live.watch, names, lambda asked: _waits(asked, live))
    with translate_error_params(), rounds.workflow_span():
        async for event in _approved(live, rounds, keep):
            yield event
        async with aclosing(rounds.stream(_question(live))) as steps:
            async for step in steps:
                for event in _spoken(step, live):
                    if isinstance(step, ApprovalRequired):
                        await ask(live, event["item"])
                    yield event
                if isinstance(step, ToolCallsStarted | ToolCallsFinished):
                    await keep(live)
    if names:
        live.response.runtime = live.run.summary()


def _listings(live: InProgressResponse) -> Iterator[Json]:
    """Say what the MCP servers have that the conversation doesn't list yet."""
    for label in dict.fromkeys(live.want.served.labels.values()):
        if label not in listed_servers(live.history):
            yield from live.speech.mcp_list_tools(label, tool_listing(label, live.want))


def _question(live: InProgressResponse) -> GenerationRequest:
    """Return what the model is asked, behind the calls that were approved."""
    items = [*live.history, *live.response.output]
    instructions = live.response.request.instructions
    messages = to_messages(items, instructions, live.want.served.names | set(live.run.tools))
    return replace(live.want.question, messages=messages)


def _spoken(step: LoopEvent, live: InProgressResponse) -> list[Json]:
    speech, response = live.speech, live.response
    match step:
        case Usage():
            response.usage = step
            return []
        case ToolCallsStarted():
            return list(speech.mcp_calls_started(step.calls))
        case ToolCallsFinished():
            return list(speech.mcp_calls_finished(step.outcomes))
        case ApprovalRequired():
            return list(speech.approval_requested(step.calls))
        case DeadlineExceeded():
            response.incomplete = "deadline"
            return []
        case ChoiceDelta():
            spoken = [
                told for event in step.events for told in speech.model_event(event, step.logprobs)
            ]
            if step.finish:
                cut = step.finish == "length"
                response.status = "incomplete" if cut else "completed"
                response.incomplete = (response.incomplete or "max_output_tokens") if cut else ""
            return spoken


async def _approved(
    live: InProgressResponse, rounds: ToolLoop, keep: SaveProgress
) -> AsyncGenerator[Json]:
    """Run the calls that the client has approved; tell the model of those it hasn't."""
    for said in live.approvals:
        asked = said.asked
        for event in live.speech.mcp_calls_started([asked], {asked.id: asked.id}):
            yield event
        if said.approved:
            outcomes = await rounds.run_calls([asked], frozenset({asked.id}))
        else:
            message = f"The user did not approve this call. {said.reason}".strip()
            fault = ToolCallError("not_allowed", message)
            outcomes = [ToolResult(asked.id, asked.name, asked.arguments, error=fault)]
        for event in live.speech.mcp_calls_finished(outcomes):
            yield event
        await keep(live)


def _waits(asked: ToolCall, live: InProgressResponse) -> bool:
    """Tell whether a call needs the client's approval: by its request, or by the tools file."""
    if asked.name in live.want.served.approval:
        return True
    tool = live.run.tools[asked.name]
    try:
        return tool.requires_approval(tool.parse_arguments(asked.arguments))
    except ToolCallError:
        return False  # its arguments are wrong, which the run tells the model
