"""The format of a reply, and how each of its schemas is served."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from falsework.grammars import schema_plan
from falsework.grammars.bare_key_arguments import bare_key_grammar
from falsework.grammars.call_formats import ReasoningTags, ToolCallFormat
from falsework.grammars.element_arguments import elements_grammar
from falsework.grammars.events import Tool
from falsework.grammars.loosened_schema import loosen
from falsework.grammars.schema_errors import SchemaTooHard, UnsupportedSchema
from falsework.grammars.schema_plan import SchemaPlan
from falsework.grammars.text_grammar import TextGrammar
from falsework.grammars.tool_choice import ToolChoice

NO_CALLS = ToolChoice("none")


@dataclass(frozen=True)
class ReplyFormat:
    """What a reply is made of.

    `thinking`: the prompt has opened a think block; with `think` and not `thinking` the model may
    open one itself. `answer`: the JSON Schema that answer text must satisfy, `text`: its grammar
    where it is no JSON; neither: free text.
    """

    markup: ToolCallFormat
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = NO_CALLS
    answer: Mapping[str, Any] | bool | None = None
    answer_where: str = "response_format.json_schema.schema"
    think: ReasoningTags | None = None
    thinking: bool = False
    text: TextGrammar | None = None
    answer_strict: bool = False

    def cache_key(self) -> bytes:
        """Return a digest that two forms share only if they admit the same replies."""
        tools = [
            (tool.name, tool.schema_text, tool.strict, tool.grammar and tool.grammar.lark())
            for tool in self.choice.callable_tools(self.tools)
        ]
        policy = (self.choice.mode, self.choice.parallel, bool(self.tools))
        think = (self.thinking, repr(self.think))
        answer = (self.answer, self.answer_strict, self.text and self.text.lark())
        admitted = json.dumps([repr(self.markup), policy, tools, think, answer])
        return hashlib.blake2b(admitted.encode(), digest_size=32).digest()


class UnsupportedFormat(ValueError):
    """A reply form that can't be enforced; `where` is the field and JSON pointer at fault.

    `too_hard`: the schema is valid, and only more than can be served here.
    """

    def __init__(
        self, reason: str, where: str, *, tool: str | None, too_hard: bool = False
    ) -> None:
        super().__init__(reason)
        self.where = where
        self.tool = tool
        self.too_hard = too_hard


@dataclass(frozen=True)
class ReplyPlan:
    """How each schema of a reply is served: the arguments' by the tool's name, and the answer's."""

    arguments: Mapping[str, SchemaPlan] = field(default_factory=dict)
    answer: SchemaPlan | None = None
    text: TextGrammar | None = None
    custom: bool = False
    """Whether a tool has a grammar."""

    @property
    def needs_llguidance(self) -> bool:
        """Whether a byte automaton can't say one of the schemas or grammars."""
        plans = [*self.arguments.values(), *([self.answer] if self.answer else [])]
        text = self.text is not None and self.text.syntax != "choice"
        return (
            text
            or self.custom
            or any(plan.how == "llguidance" or plan.expression is None for plan in plans)
        )


def plan_reply(form: ReplyFormat) -> ReplyPlan:
    """Plan the schemas of a form; raise UnsupportedFormat for one that can't be served."""
    arguments = {}
    for tool in form.choice.callable_tools(form.tools):
        if tool.grammar:
            continue
        try:
            arguments[tool.name] = _arguments_plan(tool, form.markup)
        except UnsupportedSchema as fault:
            too_hard = isinstance(fault, SchemaTooHard)
            raise UnsupportedFormat(
                fault.reason, _at(tool.where, fault), tool=tool.name, too_hard=too_hard
            ) from None
    custom = any(tool.grammar for tool in form.choice.callable_tools(form.tools))
    if form.answer is None:
        return ReplyPlan(arguments, text=form.text, custom=custom)
    try:
        return ReplyPlan(arguments, schema_plan.plan(form.answer, closed=True), custom=custom)
    except UnsupportedSchema as fault:
        raise UnsupportedFormat(fault.reason, _at(form.answer_where, fault), tool=None) from None


def _arguments_plan(tool: Tool, markup: ToolCallFormat) -> SchemaPlan:
    plan = schema_plan.plan(tool.parameters, markup.notation, arguments=True)
    if markup.elements:
        build = partial(elements_grammar, elements=markup.elements)
    elif markup.bare_keys:
        build = partial(bare_key_grammar, notation=markup.bare_keys)
    else:
        return plan
    expression, checks = loosen(tool.parameters, build)
    checks = (*plan.checks, *checks)
    return replace(
        plan, how="checked" if checks else "automaton", expression=expression, checks=checks
    )


def _at(where: str, fault: UnsupportedSchema) -> str:
    return where if fault.pointer == "/" else f"{where}#{fault.pointer}"
