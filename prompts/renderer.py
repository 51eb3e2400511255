"""From a conversation to the text that the model is asked to continue."""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import jinja2

from falsework.grammars import json_values
from falsework.grammars.events import Call, Tool
from falsework.prompts.dialects import Dialect
from falsework.prompts.messages import Message
from falsework.prompts.tokenizers import Tokenizer

_SECTION = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined).from_string(  # noqa: S701 - no HTML
    resources.files("falsework.prompts").joinpath("sections/tools.jinja").read_text("utf-8")
)


class ChatTemplateError(ValueError):
    """A conversation that the model's chat template refuses."""


@dataclass(frozen=True)
class Prompt:
    """What the engine continues; `thinking`: it ends inside a think block."""

    text: str
    tokens: tuple[int, ...]
    thinking: bool


@dataclass(frozen=True)
class PromptRenderer:
    """Lays out conversations for one model.

    `knows_tools`: the model's chat template has a tool section of its own, trained with the model.
    """

    tokenizer: Tokenizer
    dialect: Dialect
    knows_tools: bool

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        parallel: bool = True,
        think: bool = True,
    ) -> Prompt:
        """Return the prompt; raise Unpromptable with the template's own words when it refuses."""
        section = "" if self.knows_tools else self._section(tools, parallel)
        laid = list(self._turns(messages, section))
        offered = [_described(tool) for tool in tools] if self.knows_tools and tools else None
        try:
            text: str = self.tokenizer.apply_chat_template(
                laid, tools=offered, tokenize=False, add_generation_prompt=True,
                enable_thinking=think, thinking=think,
            )  # fmt: skip
        except (jinja2.TemplateError, TypeError, KeyError) as fault:
            msg = f"The model's chat template refuses this conversation: {fault}"
            raise ChatTemplateError(msg) from fault
        text, thinking = self._thought(text, think=think)
        return Prompt(text, tuple(self.tokenizer.encode(text, add_special_tokens=False)), thinking)

    def _thought(self, text: str, *, think: bool) -> tuple[str, bool]:
        """Tell whether the template opened a think block; close it where none is wanted."""
        block = self.dialect.think
        if block is None or not text.rstrip().endswith(block.opening.rstrip()):
            return text, False
        if think:
            return text, True
        return text + block.closing + block.gap, False

    def _section(self, tools: Sequence[Tool], parallel: bool) -> str:
        if not tools:
            return ""
        calls = [Call("first_function", '{"argument": "value"}'), Call("second_function", "{}")]
        return _SECTION.render(
            tools=[json_values.dumps(_described(tool)["function"]) for tool in tools],
            one=self.dialect.markup.render(calls[:1]),
            two=self.dialect.markup.render(calls),
            parallel=parallel,
        )

    def _turns(self, messages: Sequence[Message], section: str) -> Iterator[dict[str, Any]]:
        """Yield messages as the template wants them: one system message, first, then the rest."""
        system = [message.text for message in messages if message.role == "system"]
        if section:
            system.append(section)
        if system:
            yield {"role": "system", "content": "\n\n".join(system)}
        rest = [message for message in messages if message.role != "system"]
        if self.dialect.one_call_a_message:
            rest = list(_one_by_one(rest))
        if self.knows_tools or self.dialect.template_writes_calls:
            yield from (self._turn(message) for message in rest)
        else:
            yield from self._without_tool_role(rest)

    def _turn(self, message: Message) -> dict[str, Any]:
        if message.role == "tool":
            return {"role": "tool", "content": message.text, "name": message.name,
                    "tool_call_id": message.call_id}  # fmt: skip
        if not message.calls:
            return {"role": message.role, "content": message.text}
        if not self.dialect.template_writes_calls:
            written = self.dialect.markup.render(message.calls)
            return {"role": "assistant", "content": message.text + written}
        ids = message.call_ids or ("",) * len(message.calls)
        calls = [
            {"id": i, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c, i in zip(message.calls, ids, strict=True)
        ]
        return {"role": "assistant", "content": message.text or None, "tool_calls": calls}

    def _without_tool_role(self, messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
        """Yield results as user messages, those of one turn together."""
        results: list[str] = []
        for message in messages:
            if message.role == "tool":
                results.append(f"<tool_response>\n{message.text}\n</tool_response>")
                continue
            if results:
                yield {"role": "user", "content": "\n".join(results)}
                results = []
            yield self._turn(message)
        if results:
            yield {"role": "user", "content": "\n".join(results)}


def _one_by_one(messages: Iterable[Message]) -> Iterator[Message]:
    """Yield each call of a message on its own, followed by its result."""
    rest = deque(messages)
    while rest:
        message = rest.popleft()
        results: list[Message] = []
        while message.calls and rest and rest[0].role == "tool":
            results.append(rest.popleft())
        yield from _split(message, results)


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


def _described(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": json.loads(json.dumps(function))}
