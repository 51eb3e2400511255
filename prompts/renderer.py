"""From a conversation to the text that the model is asked to continue."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from typing import Any

import jinja2

from falsework.grammars import json_values
from falsework.grammars.events import Call, Tool
from falsework.prompts.chat_template import ChatTemplate, Turn
from falsework.prompts.control_tokens import ControlTokens
from falsework.prompts.conversation_layout import (
    lay_out,
    one_call_each,
    one_system_message,
    with_family_ids,
    with_system_text,
)
from falsework.prompts.dialects import Dialect
from falsework.prompts.errors import ChatTemplateError
from falsework.prompts.kept_by_text import KeptByText
from falsework.prompts.messages import Message
from falsework.prompts.reasoning_switches import reasoning_switches, separate_reasoning
from falsework.prompts.template_features import (
    PROBE_CALL,
    Probes,
    TemplateFeatures,
    learn_features,
)
from falsework.prompts.tokenizers import Tokenizer
from falsework.prompts.turns import RawResults, TurnFactory, as_object

__all__ = ["ChatTemplateError", "Prompt", "PromptRenderer", "UnknownSwitch"]


def _section(name: str) -> jinja2.Template:
    """Return a section of ours."""
    file = resources.files("falsework.prompts").joinpath(f"sections/{name}.jinja")
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)  # noqa: S701 - no HTML
    return environment.from_string(file.read_text("utf-8"))


_TOOLS, _ANSWER = _section("tools"), _section("answer")

_Offer = tuple[list[dict[str, Any]], str]

MAX_KEPT_OFFERS = 2 * 2**20
"""Characters of the tools whose descriptions are kept, as JSON."""


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

    def __post_init__(self) -> None:
        """Make what all threads have to share: one secret word for one prompt."""
        _ = self.control_tokens

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
            return self.turns.turn(message, TemplateFeatures())

        def result_turn(call_id: str, text: str) -> Turn:
            result = Message("tool", text, call_id=call_id, name=PROBE_CALL.name)
            return next(self.turns.turns([result], TemplateFeatures(), RawResults()))

        spelled = self.dialect.markup.render([PROBE_CALL])
        options = reasoning_switches(self.template, self.dialect, None)
        return learn_features(Probes(self.template, call_turn, result_turn, spelled, options))

    def prepare(self) -> None:
        """Make now what is otherwise made when it is first needed, which takes seconds."""
        _ = self.features
        self.control_tokens.encode_renamed("")

    @cached_property
    def turns(self) -> TurnFactory:
        """What makes turns of messages."""
        tool_role = self.knows_tools or self.dialect.template_writes_calls
        return TurnFactory(self.template, self.dialect, tool_role)

    def render(  # noqa: PLR0913 - what a request says of its prompt
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        parallel: bool = True,
        think: bool = True,
        effort: str | None = None,
        switches: Mapping[str, Any] | None = None,
        answer: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """Return the prompt; raise ChatTemplateError with the template's words when it refuses.

        `effort` is the request's reasoning_effort, `switches` are its chat_template_kwargs: raise
        UnknownSwitch for one that the template doesn't read. `answer` is the JSON Schema of the
        answer, where the model is to be told one.
        """
        try:
            given = self._checked(switches or {})
            conversation = [self._escaped(message) for message in messages]
            described, section = self._offer(tools, parallel=parallel)
            schema = self._answer_section(answer, tools=bool(tools))
            results = RawResults()
            turns = self._turns(conversation, section, results, schema)
        except RecursionError as error:
            raise ChatTemplateError("An argument or a schema nests too deeply.") from error
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
        arguments = as_object(call.arguments) if "\\" in call.arguments else None
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

    def _offer(self, tools: Sequence[Tool], *, parallel: bool) -> _Offer:
        """Return the tools as the template is given them, and our own section about them.

        Agents offer the same tools in each turn, so both are kept.
        """
        if not tools:
            return [], ""
        key = json.dumps([parallel, *((t.name, t.description, t.schema_text) for t in tools)])
        offer = self._offers.get(key)
        if offer is None:
            described = [self.control_tokens.escape_all(_described(tool)) for tool in tools]
            offer = described, "" if self.knows_tools else self._section(described, parallel)
            self._offers.put(key, offer)
        return offer

    @cached_property
    def _offers(self) -> KeptByText[_Offer]:
        return KeptByText(MAX_KEPT_OFFERS)

    def _section(self, described: Sequence[Mapping[str, Any]], parallel: bool) -> str:
        calls = [Call("first_function", '{"argument": "value"}'), Call("second_function", "{}")]
        return _TOOLS.render(
            tools=[json_values.dumps(tool["function"]) for tool in described],
            one=self.dialect.markup.render(calls[:1]),
            two=self.dialect.markup.render(calls),
            parallel=parallel,
        )

    def _answer_section(self, schema: Mapping[str, Any] | None, *, tools: bool) -> str:
        """Return what the model is told of its answer's schema."""
        if schema is None:
            return ""
        plain = self.control_tokens.escape_all(json.loads(json.dumps(schema)))
        text = self.dialect.answer_section
        if text and not tools:
            return text.replace("{schema}", json_values.dumps(plain))
        return _ANSWER.render(schema=json_values.dumps(plain), tools=tools)

    def _turns(
        self, messages: Sequence[Message], section: str, results: RawResults, answer: str
    ) -> list[Turn]:
        """Return the turns that the template is given, our own sections in the first."""
        if self.dialect.call_id:
            messages = list(with_family_ids(messages, self.dialect))
        if self.dialect.one_call_a_message:
            messages = list(one_call_each(messages))
        turns = list(self.turns.turns(messages, self.features, results))
        if section:
            turns = list(one_system_message(turns, section))
        if answer:
            turns = list(with_system_text(turns, answer))
        return lay_out(turns, self.features)


def _described(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": json.loads(json.dumps(function))}
