"""How a response is made: lists, approved calls, the model's turns and the calls between them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace

from falsework.runtime.faults import Fault
from falsework.runtime.outcomes import Outcome
from falsework.runtime.tools import Asked
from falsework.server.chat import Chat
from falsework.server.choices import Step
from falsework.server.questions import Question
from falsework.server.replies import Json, Usage
from falsework.server.responses.items import conversation, listed
from falsework.server.responses.lives import Live, listing
from falsework.server.responses.questions import respelled
from falsework.server.rounds import Called, Calling, Cut, Rounds, Told, Waiting

Keep = Callable[[Live], Awaitable[None]]
Ask = Callable[[Live, Json], Awaitable[None]]


async def made(live: Live, chat: Chat, keep: Keep, ask: Ask) -> AsyncGenerator[Json]:
    """Tell what a response says between its beginning and its end.

    `keep` keeps what it has become so far, `ask` that an item waits for approval.
    """
    for event in _listings(live):
        yield event
    names = live.want.served.names
    rounds = Rounds(chat, live.run, live.watch, names, lambda asked: _waits(asked, live))
    with respelled(), rounds.as_one_workflow():
        async for event in _approved(live, rounds, keep):
            yield event
        async with aclosing(rounds.told(_question(live))) as steps:
            async for step in steps:
                for event in _spoken(step, live):
                    if isinstance(step, Waiting):
                        await ask(live, event["item"])
                    yield event
                if isinstance(step, Calling | Called):
                    await keep(live)
    if names:
        live.response.runtime = live.run.told()


def _listings(live: Live) -> Iterator[Json]:
    """Say what the MCP servers have that the conversation doesn't list yet."""
    for label in dict.fromkeys(live.want.served.labels.values()):
        if label not in listed(live.history):
            yield from live.speech.lists(label, listing(label, live.want))


def _question(live: Live) -> Question:
    """Return what the model is asked, behind the calls that were approved."""
    items = [*live.history, *live.response.output]
    instructions = live.response.request.instructions
    messages = conversation(items, instructions, live.want.served.names | set(live.run.tools))
    return replace(live.want.question, messages=messages)


def _spoken(step: Told, live: Live) -> list[Json]:
    speech, response = live.speech, live.response
    match step:
        case Usage():
            response.usage = step
            return []
        case Calling():
            return list(speech.calling(step.calls))
        case Called():
            return list(speech.called(step.outcomes))
        case Waiting():
            return list(speech.waits(step.calls))
        case Cut():
            response.incomplete = "deadline"
            return []
        case Step():
            spoken = [told for event in step.events for told in speech.hears(event, step.logprobs)]
            if step.finish:
                cut = step.finish == "length"
                response.status = "incomplete" if cut else "completed"
                response.incomplete = (response.incomplete or "max_output_tokens") if cut else ""
            return spoken


async def _approved(live: Live, rounds: Rounds, keep: Keep) -> AsyncGenerator[Json]:
    """Run the calls that the client has approved; tell the model of those it hasn't."""
    for said in live.approvals:
        asked = said.asked
        for event in live.speech.calling([asked], {asked.id: asked.id}):
            yield event
        if said.approved:
            outcomes = await rounds.ran([asked], frozenset({asked.id}))
        else:
            message = f"The user did not approve this call. {said.reason}".strip()
            fault = Fault("not_allowed", message)
            outcomes = [Outcome(asked.id, asked.name, asked.arguments, fault=fault)]
        for event in live.speech.called(outcomes):
            yield event
        await keep(live)


def _waits(asked: Asked, live: Live) -> bool:
    """Tell whether a call needs the client's approval: by its request, or by the tools file."""
    if asked.name in live.want.served.approval:
        return True
    tool = live.run.tools[asked.name]
    try:
        return tool.waits_for_approval(tool.read(asked.arguments))
    except Fault:
        return False  # its arguments are wrong, which the run tells the model
