"""From a conversation to the text that the model is asked to continue."""

import json
import re
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from typing import Any

import jinja2

from falsework.grammars import json_values
from falsework.grammars.events import Call, Tool
from falsework.prompts.chat_template import ChatTemplate, ChatTemplateError, Turn
from falsework.prompts.control_tokens import ControlTokens
from falsework.prompts.conversation_layout import lay_out, one_system_message
from falsework.prompts.dialects import Dialect
from falsework.prompts.messages import Message
from falsework.prompts.reasoning_switches import reasoning_switches, separate_reasoning
from falsework.prompts.template_features import PROBE_CALL, Probes, TemplateFeatures
from falsework.prompts.tokenizers import Tokenizer

__all__ = ["ChatTemplateError", "Prompt", "PromptRenderer", "UnknownSwitch"]

_SECTION = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined).from_string(  # noqa: S701 - no HTML
    resources.files("falsework.prompts").joinpath("sections/tools.jinja").read_text("utf-8")
)
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Names under which chat templates read the reasoning of a past message."""


class UnknownSwitch(ValueError):
    """A variable in `chat_template_kwargs` that the chat template doesn't read; its name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        switches = ", ".join(f"'{switch}'" for switch in sorted(known)) or "no switches"
        super().__init__(
            f"Unknown switch '{name[:100]}': this model's chat template reads {switches}."
        )


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

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template of the model, or the dialect's in its place."""
        name = self.dialect.chat_template
        files = resources.files("falsework.prompts").joinpath("templates")
        source = files.joinpath(name).read_text("utf-8") if name else ""
        return ChatTemplate(self.tokenizer, source)

    @cached_property
    def control_tokens(self) -> ControlTokens:
        """The vocabulary's control tokens."""
        return ControlTokens(self.tokenizer, (self.template.source, *self.dialect.markers))

    @cached_property
    def features(self) -> TemplateFeatures:
        """What the chat template accepts."""

        def call_turn(call_id: str, text: str, reasoning: str) -> Turn:
            calls, ids = (PROBE_CALL,), (call_id,)
            message = Message("assistant", text, calls, ids, reasoning=reasoning)
            return self._turn(message, TemplateFeatures())

        def result_turn(call_id: str, text: str) -> Turn:
            result = Message("tool", text, call_id=call_id, name=PROBE_CALL.name)
            return next(self._with_results([result], TemplateFeatures(), _RawResults()))

        spelled = self.dialect.markup.render([PROBE_CALL])
        options = reasoning_switches(self.template, self.dialect, None)
        return Probes(self.template, call_turn, result_turn, spelled, options).learn()

    def prepare(self) -> None:
        """Make now what is otherwise made when it is first needed, which takes seconds."""
        _ = self.features
        self.control_tokens.encode_renamed("")

    @property
    def _has_tool_role(self) -> bool:
        return self.knows_tools or self.dialect.template_writes_calls

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        parallel: bool = True,
        think: bool = True,
        effort: str | None = None,
        switches: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """Return the prompt; raise ChatTemplateError with the template's words when it refuses.

        `effort` is the request's reasoning_effort, `switches` are its chat_template_kwargs: raise
        UnknownSwitch for one that the template doesn't read.
        """
        given = self._checked(switches or {})
        escape = self.control_tokens.escape_all
        conversation = [self._escaped(message) for message in messages]
        described = [escape(_described(tool)) for tool in tools]
        section = "" if self.knows_tools else self._section(described, parallel)
        results = _RawResults()
        turns = self._turns(conversation, section, results)
        offered = described if self.knows_tools and tools else None
        if offered is None and self.features.tools_as_list:
            offered = []
        text = self.template.render(
            turns,
            offered,
            **{**reasoning_switches(self.template, self.dialect, effort, think=think), **given},
        )
        text, thinking = self._opened(results.put_into(text), think=think)
        tokens = self.control_tokens.encode(text)
        return Prompt(self.control_tokens.unescape(text), tokens, thinking)

    def _checked(self, switches: Mapping[str, Any]) -> dict[str, Any]:
        for name in switches:
            if name not in self.template.switches:
                raise UnknownSwitch(name, self.template.switches)
        return {name: self.control_tokens.escape_all(value) for name, value in switches.items()}

    def _escaped(self, message: Message) -> Message:
        """Return a message whose texts spell no control token."""
        if self.dialect.think:
            message = separate_reasoning(message, self.dialect.think)
        escape = self.control_tokens.escape
        return replace(
            message,
            text=escape(message.text),
            calls=tuple(
                Call(escape(call.name), self._escaped_arguments(call)) for call in message.calls
            ),
            call_ids=tuple(escape(call_id) for call_id in message.call_ids),
            call_id=escape(message.call_id),
            name=escape(message.name),
            reasoning=escape(message.reasoning),
        )

    def _escaped_arguments(self, call: Call) -> str:
        """Return arguments that spell no control token, nor do once their JSON is read."""
        arguments = _as_object(call.arguments) if "\\" in call.arguments else None
        escaped = self.control_tokens.escape_all(arguments)
        if escaped != arguments:
            return json_values.dumps(escaped)
        return self.control_tokens.escape(call.arguments)

    def _opened(self, text: str, *, think: bool) -> tuple[str, bool]:
        """Open the think block where the family wants it; close it where nobody does."""
        block = self.dialect.think
        if block is None:
            return text, False
        if not text.rstrip().endswith(block.opening.rstrip()):
            if not self.dialect.opens_reasoning or text.rstrip().endswith(block.closing.rstrip()):
                return text, False
            text += block.opening
        if think:
            return text, True
        return text + block.closing + block.gap, False

    def _section(self, described: Sequence[Mapping[str, Any]], parallel: bool) -> str:
        if not described:
            return ""
        calls = [Call("first_function", '{"argument": "value"}'), Call("second_function", "{}")]
        return _SECTION.render(
            tools=[json_values.dumps(tool["function"]) for tool in described],
            one=self.dialect.markup.render(calls[:1]),
            two=self.dialect.markup.render(calls),
            parallel=parallel,
        )

    def _turns(
        self, messages: Sequence[Message], section: str, results: "_RawResults"
    ) -> list[Turn]:
        """Return the turns that the template is given, our own tool section in the first."""
        if self.dialect.one_call_a_message:
            messages = list(_one_by_one(messages))
        turns = list(self._with_results(messages, self.features, results))
        if section:
            own: Turn = {"role": "system", "content": section}
            turns = list(one_system_message([*turns, own]))
        return lay_out(turns, self.features)

    def _with_results(
        self, messages: Iterable[Message], features: TemplateFeatures, raw: "_RawResults"
    ) -> Iterator[Turn]:
        """Yield the turns of messages; without a tool role, the results of one are the user's."""
        results: list[str] = []
        names: dict[str, str] = {}
        for message in messages:
            if message.role == "tool" and not self._has_tool_role:
                results.append(f"<tool_response>\n{message.text}\n</tool_response>")
                continue
            if results:
                yield {"role": "user", "content": "\n".join(results)}
                results = []
            if message.role == "tool":
                text = raw.add(message.text) if features.quotes_results else message.text
                name = message.name or names.get(message.call_id, "")
                yield {"role": "tool", "content": text, "name": name,
                       "tool_call_id": message.call_id}  # fmt: skip
                continue
            names |= zip(message.call_ids, (call.name for call in message.calls), strict=False)
            yield self._turn(message, features)
        if results:
            yield {"role": "user", "content": "\n".join(results)}

    def _turn(self, message: Message, features: TemplateFeatures) -> Turn:
        """Return the turn of a message that is no tool result."""
        text, reasoning = message.text, message.reasoning
        calls = self._past_calls(message, features)
        if calls and text and reasoning and not features.reasoning_beside_text:
            text, reasoning = "", f"{reasoning}\n\n{text}"
        turn: Turn = {"role": message.role, "content": text}
        if reasoning:
            fields = filter(self.template.mentions, _REASONING_FIELDS)
            turn |= dict.fromkeys(fields, reasoning)
        if calls and self.dialect.past_calls:
            content = text or self.dialect.past_calls.empty_content
            return {**turn, "content": content, "tool_calls": calls}
        if message.calls:
            gap = features.text_gap if text and not text.endswith("\n") else ""
            turn["content"] = text + gap + self.dialect.markup.render(message.calls)
        return turn

    def _past_calls(self, message: Message, features: TemplateFeatures) -> list[Turn]:
        """Return the calls as the template takes them, none where they are to be spelled here."""
        past = self.dialect.past_calls
        if past is None or (message.text and not features.text_beside_calls):
            return []
        ids = message.call_ids or ("",) * len(message.calls)
        calls = []
        for call, call_id in zip(message.calls, ids, strict=True):
            arguments = call.arguments if past.as_text else _as_object(call.arguments)
            if arguments is None:
                return []  # a template that takes objects has no place for what is none
            function = {"name": call.name, "arguments": arguments}
            calls.append({"id": call_id, "type": "function", "function": function})
        return calls


class _RawResults:
    """Results that the template would quote as JSON strings: placeholders stand for them.

    Meta's and OpenAI's own documents of their formats show results as they are.
    """

    def __init__(self) -> None:
        self._word = "r" + secrets.token_hex(8)
        self._texts: list[str] = []

    def add(self, text: str) -> str:
        """Return the placeholder of a result."""
        self._texts.append(text)
        return f"{self._word}x{len(self._texts) - 1}"

    def put_into(self, rendered: str) -> str:
        """Return the prompt with each placeholder, and the quotes round it, replaced."""
        if not self._texts:
            return rendered
        return re.sub(
            f'"?{self._word}x([0-9]+)"?', lambda found: self._texts[int(found[1])], rendered
        )


def _as_object(arguments: str) -> dict[str, Any] | None:
    """Return the object that arguments spell; None where they spell none."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


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
