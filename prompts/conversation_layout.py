"""Conversations laid out so that a chat template accepts them, with nothing lost."""

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from falsework.prompts.chat_template import Turn
from falsework.prompts.dialects import Dialect
from falsework.prompts.messages import Message
from falsework.prompts.template_features import NINE_CHARACTERS, TemplateFeatures, as_parts

BETWEEN_MESSAGES = "\n\n"
"""What stands between messages that become one."""


def lay_out(turns: Iterable[Turn], features: TemplateFeatures) -> list[Turn]:
    """Return the turns in the order and the roles that the template accepts."""
    laid_out = list(turns)
    for step in _STEPS:
        laid_out = list(step(laid_out, features))
    return laid_out


def one_system_message(turns: Sequence[Turn], own: str = "") -> Iterator[Turn]:
    """Yield the system messages that begin the conversation as one, `own` the last of them.

    Those that come later stay where they are: a prompt that grows keeps its beginning.
    """
    head = list(itertools.takewhile(lambda turn: turn["role"] == "system", turns))
    system = [turn["content"] for turn in head] + ([own] if own else [])
    if system:
        yield {"role": "system", "content": BETWEEN_MESSAGES.join(system)}
    yield from turns[len(head) :]


def with_system_text(turns: Sequence[Turn], text: str) -> Iterator[Turn]:
    """Yield the turns with a text at the end of the system message that they begin with."""
    first = [turn["content"] for turn in turns[:1] if turn["role"] == "system"]
    yield {"role": "system", "content": BETWEEN_MESSAGES.join([*first, text])}
    yield from turns[len(first) :]


def one_call_each(messages: Iterable[Message]) -> Iterator[Message]:
    """Yield each call of a message on its own, followed by its result."""
    rest = deque(messages)
    while rest:
        message = rest.popleft()
        results: list[Message] = []
        while message.calls and rest and rest[0].role == "tool":
            results.append(rest.popleft())
        yield from _split(message, results)


def with_family_ids(messages: Iterable[Message], dialect: Dialect) -> Iterator[Message]:
    """Yield messages with ids of calls as the family's history has them."""
    ids: dict[str, str] = {}
    count = 0
    for message in messages:
        if message.calls:
            numbered = enumerate(zip(message.calls, message.call_ids, strict=False), count)
            ids = {
                call_id: dialect.past_call_id(call.name, number, call_id)
                for number, (call, call_id) in numbered
            }
            count += len(message.calls)
        call_ids = tuple(ids[call_id] for call_id in message.call_ids)
        yield replace(message, call_ids=call_ids, call_id=ids.get(message.call_id, message.call_id))


def _split(message: Message, results: list[Message]) -> Iterator[Message]:
    """Yield a message a call at a time, each with its result."""
    if not message.calls:
        yield message
    for number, call in enumerate(message.calls):
        text, ids = (message.text if number == 0 else ""), message.call_ids[number : number + 1]
        yield replace(message, text=text, calls=(call,), call_ids=ids)
        answer = next((result for result in results if result.call_id in ids), None)
        if answer:
            results.remove(answer)
            yield answer
    yield from results


def _system_messages(turns: Sequence[Turn], features: TemplateFeatures) -> Iterator[Turn]:
    """Join system messages where only the first may be one; make it the user's where none may."""
    if not features.late_system:
        turns = list(_late_to_users(list(one_system_message(turns))))
    for turn in turns:
        is_system = turn["role"] == "system"
        yield {**turn, "role": "user"} if is_system and not features.system else turn


def _late_to_users(turns: Sequence[Turn]) -> Iterator[Turn]:
    """Put each later system message at the beginning of the user's next one."""
    waiting: list[str] = []
    for index, turn in enumerate(turns):
        if turn["role"] == "system" and index:
            waiting.append(turn["content"])
        elif waiting and turn["role"] == "user":
            yield {**turn, "content": BETWEEN_MESSAGES.join([*waiting, turn["content"]])}
            waiting = []
        else:
            if waiting:
                yield {"role": "user", "content": BETWEEN_MESSAGES.join(waiting)}
                waiting = []
            yield turn
    if waiting:
        yield {"role": "user", "content": BETWEEN_MESSAGES.join(waiting)}


def _bridged(turns: Sequence[Turn], features: TemplateFeatures) -> Iterator[Turn]:
    """Let the assistant speak between a tool result and a user's message where it has to."""
    before = ""
    for turn in turns:
        if features.bridge is not None and (before, turn["role"]) == ("tool", "user"):
            yield {"role": "assistant", "content": features.bridge}
        yield turn
        before = turn["role"]


def _joined(turns: Sequence[Turn], features: TemplateFeatures) -> Iterator[Turn]:
    """Join messages of one role that follow each other where roles have to take turns.

    A user's message that stands for a system message joins the one behind it.
    """
    if features.neighbours and features.system:
        yield from turns
        return
    pending: Turn | None = None
    for turn in turns:
        if pending is not None and _can_join(pending, turn):
            pending = _join(pending, turn)
            continue
        if pending is not None:
            yield pending
        pending = turn
    if pending is not None:
        yield pending


def _can_join(turn: Turn, following: Turn) -> bool:
    calls = "tool_calls" in turn or "tool_calls" in following
    return turn["role"] == following["role"] and turn["role"] in {"user", "assistant"} and not calls


def _join(turn: Turn, following: Turn) -> Turn:
    texts = [text for text in (turn["content"], following["content"]) if text]
    return {**turn, **following, "content": BETWEEN_MESSAGES.join(texts) or following["content"]}


def _user_first(turns: Sequence[Turn], features: TemplateFeatures) -> Iterator[Turn]:
    """Begin with the user where the assistant may not."""
    first = next((turn["role"] for turn in turns if turn["role"] != "system"), "user")
    for turn in turns:
        if turn["role"] != "system" and first == "assistant" and not features.assistant_first:
            yield {"role": "user", "content": ""}
            first = "user"
        yield turn


def _short_ids(turns: Sequence[Turn], features: TemplateFeatures) -> Iterator[Turn]:
    """Give calls ids of nine characters where the template wants them so."""
    if not features.short_ids:
        yield from turns
        return
    for turn in turns:
        shortened = dict(turn)
        if turn["role"] == "tool":
            shortened["tool_call_id"] = short_id(turn["tool_call_id"])
        if "tool_calls" in turn:
            calls = turn["tool_calls"]
            shortened["tool_calls"] = [{**call, "id": short_id(call["id"])} for call in calls]
        yield shortened


def short_id(call_id: str) -> str:
    """Return an id of nine letters and digits, the same for the same id."""
    if NINE_CHARACTERS.fullmatch(call_id):
        return call_id
    return hashlib.blake2b(call_id.encode(), digest_size=5).hexdigest()[:9]


def _content_parts(turns: Sequence[Turn], features: TemplateFeatures) -> Iterator[Turn]:
    """Give content as lists of parts where the template reads no text."""
    return (as_parts(turn) if features.content_parts else turn for turn in turns)


_STEPS: tuple[Callable[[Sequence[Turn], TemplateFeatures], Iterator[Turn]], ...] = (
    _system_messages,
    _user_first,
    _bridged,
    _joined,
    _short_ids,
    _content_parts,
)
