"""What one reply may be: think block, answer and calls, for every tool_choice and every markup."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from falsework.grammars import schema_plan
from falsework.grammars.bare_key_arguments import bare_key_grammar
from falsework.grammars.call_formats import (
    PLACEHOLDERS,
    ReasoningTags,
    ToolCallFormat,
    literal_parts,
)
from falsework.grammars.dfa import DEAD, DFA, START, compile_dfa
from falsework.grammars.element_arguments import elements_grammar
from falsework.grammars.events import Tool
from falsework.grammars.expressions import (
    NFA,
    Expression,
    choice,
    literal,
    optional,
    regex,
    sequence,
)
from falsework.grammars.free_text import text_until_marker, text_without_marker
from falsework.grammars.loosened_schema import loosen
from falsework.grammars.schema_errors import UnsupportedSchema
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
            (tool.name, tool.parameters, tool.strict, tool.grammar and tool.grammar.lark())
            for tool in self.choice.callable_tools(self.tools)
        ]
        policy = (self.choice.mode, self.choice.parallel, bool(self.tools))
        think = (self.thinking, repr(self.think))
        answer = (self.answer, self.answer_strict, self.text and self.text.lark())
        admitted = json.dumps([repr(self.markup), policy, tools, think, answer])
        return hashlib.blake2b(admitted.encode(), digest_size=32).digest()


class UnsupportedFormat(ValueError):
    """A reply form that can't be enforced; `where` is the field and JSON pointer at fault."""

    def __init__(self, reason: str, where: str, *, tool: str | None) -> None:
        super().__init__(reason)
        self.where = where
        self.tool = tool


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
            raise UnsupportedFormat(fault.reason, _at(tool.where, fault), tool=tool.name) from None
    custom = any(tool.grammar for tool in form.choice.callable_tools(form.tools))
    if form.answer is None:
        return ReplyPlan(arguments, text=form.text, custom=custom)
    try:
        return ReplyPlan(arguments, schema_plan.plan(form.answer), custom=custom)
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


def reply_grammar(form: ReplyFormat, plan: ReplyPlan | None = None) -> Expression:
    """Say a whole reply of this form; raise UnsupportedFormat for a schema that can't be served.

    `plan` is the form's, where it is made already; all of its schemas need an expression.
    """
    body = _body(form, plan or plan_reply(form))
    if form.markup.leading:
        body = sequence(optional(literal(form.markup.leading)), body)
    think = form.think
    if think is None:
        return body
    gaps = choice([literal(gap) for gap in dict.fromkeys((think.gap, *think.other_gaps))])
    excluded = form.markup.excluded_before(think.closing)
    block = sequence(text_until_marker(think.closing, without=excluded), gaps)
    if form.thinking:
        return sequence(block, body)
    stem = think.opening.rstrip("\n")
    opening = sequence(literal(stem), optional(literal(think.opening[len(stem) :])))
    leading = optional(literal(think.leading)) if think.leading else sequence()
    return sequence(optional(sequence(leading, opening, block)), body)


def between_characters_state(form: ReplyFormat, automaton: DFA) -> int:
    """Return the state between two characters of the think block, DEAD where there is none."""
    if form.think is None:
        return DEAD
    return START if form.thinking else automaton.step(START, form.think.opening.encode())


def _body(form: ReplyFormat, plan: ReplyPlan) -> Expression:
    tools = form.choice.callable_tools(form.tools)
    if not tools:
        return _answer(form, plan)
    head, trigger = form.markup.prefix, form.markup.trigger
    arguments = [(tool.name, _expression(plan.arguments[tool.name])) for tool in tools]
    calls = _Calls(form.markup, arguments, parallel=form.choice.parallel)
    if form.choice.mode == "required":
        return sequence(_spelled(head), calls)
    ways = [_spelled(head)]
    if trigger and form.answer is None:
        ways.append(_text_before_calls(form))
    answer = _answer(form, plan)
    if form.answer is not None and not trigger:
        _refuse_ambiguity(answer, head, form.answer_where)
    marked = optional(_marked_text(form)) if form.markup.text_opening else sequence()
    habitual = [
        sequence(
            marked, _spelled(habit.prefix), _Calls(habit, arguments, parallel=form.choice.parallel)
        )
        for habit in alternative_formats(form)
    ]
    return choice([sequence(choice(ways), calls), *habitual, answer])


def _text_before_calls(form: ReplyFormat) -> Expression:
    """Say text, then the calls up to the first name."""
    markup = form.markup
    if markup.text_opening:
        return sequence(_marked_text(form), _spelled(markup.prefix))
    barred, excluded = barred_characters(form), _excluded(form, markup.trigger)
    text = text_until_marker(markup.trigger, barred, excluded)
    return sequence(text, _spelled(markup.prefix[len(markup.trigger) :]))


def _marked_text(form: ReplyFormat) -> Expression:
    """Say text before calls with its marks round it."""
    closing = form.markup.text_closing
    text = text_until_marker(closing, barred_characters(form), _excluded(form, closing))
    return sequence(literal(form.markup.text_opening), text)


def _spelled(literal_text: str) -> Expression:
    """Say a literal in which placeholders may stand."""
    return sequence(
        *(
            _of_class(*PLACEHOLDERS[part]) if part in PLACEHOLDERS else literal(part)
            for part in literal_parts(literal_text)
        )
    )


def _of_class(characters: str, low: int, high: int) -> Expression:
    """Say from `low` to `high` characters of a class."""
    return regex(f"{characters}{{{low},{high}}}")


def alternative_formats(form: ReplyFormat) -> tuple[ToolCallFormat, ...]:
    """Return the other spellings of calls that a reply of this form may begin with."""
    return form.markup.habits if form.choice.mode == "auto" and form.answer is None else ()


def _refuse_ambiguity(answer: Expression, head: str, where: str) -> None:
    """Refuse an answer that may begin like a call of a markup without a trigger."""
    if compile_dfa(answer).step(START, head.encode()) != DEAD:
        msg = (
            f"with this model a reply that begins {head!r} is a call, and this format's JSON may "
            "begin like it; use tool_choice required or none, or another format"
        )
        raise UnsupportedFormat(msg, where, tool=None)


def _answer(form: ReplyFormat, plan: ReplyPlan) -> Expression:
    markup = form.markup
    if plan.text is not None or plan.answer is not None:
        value = (
            choice([literal(text) for text in plan.text.texts])
            if plan.text
            else _expression(plan.answer)
        )
        return sequence(literal(markup.answer_opening), value, literal(markup.answer_closing))
    excluded = _excluded(form, markup.trigger)
    if markup.answer_closing:
        closed = text_until_marker(
            markup.answer_closing, barred_characters(form), (markup.trigger, *excluded)
        )
        return sequence(literal(markup.answer_opening), closed)
    text = text_without_marker(markup.trigger, barred_characters(form), excluded)
    return sequence(literal(markup.answer_opening), text)


def _expression(plan: SchemaPlan | None) -> Expression:
    assert plan, "there is a schema"
    assert plan.expression, "a reply that an automaton can't say is llguidance's"
    return plan.expression


def barred_characters(form: ReplyFormat) -> str:
    """Return the first characters that answer text may not have: blanks, and what begins a call."""
    return " \t\r\n" + (form.markup.barred if form.choice.callable_tools(form.tools) else "")


def _excluded(form: ReplyFormat, marker: str) -> tuple[str, ...]:
    """Return the markers that no text holds before `marker`, which ends it."""
    thought = (form.think.opening.rstrip(),) if form.think else ()
    return (*form.markup.excluded_before(marker), *thought)


class _Calls:
    """Calls behind `head`: each tool's name and arguments once, a jump back for the next call."""

    def __init__(
        self, markup: ToolCallFormat, tools: Sequence[tuple[str, Expression]], *, parallel: bool
    ) -> None:
        self._markup = markup
        self._parallel = parallel
        self._tools = tools

    def __call__(self, net: NFA, start: int) -> int:
        markup = self._markup
        names, said = net.add_node(), net.add_node()
        net.jumps.append((start, names))
        after_name = _spelled(markup.after_name)
        for name, arguments in self._tools:
            behind = after_name(net, net.literal(names, name.encode()))
            net.jumps.append((arguments(net, behind), said))
        if markup.optional_id:
            said = optional(_spelled(markup.optional_id))(net, said)
        end = net.literal(said, markup.after_arguments.encode())
        if self._parallel and markup.parallel:
            for separator in (markup.separator, *markup.other_separators):
                again = _spelled(separator + markup.before_name)
                net.jumps.append((again(net, end), names))
        return net.literal(end, markup.closing.encode())


def _at(where: str, fault: UnsupportedSchema) -> str:
    return where if fault.pointer == "/" else f"{where}#{fault.pointer}"
