"""What one reply may be: think block, answer and calls, for every tool_choice and every markup."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from falsework.grammars import json_schema
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
from falsework.grammars.schema_errors import UnsupportedSchema
from falsework.grammars.tool_choice import ToolChoice

NO_CALLS = ToolChoice("none")


@dataclass(frozen=True)
class ReplyFormat:
    """What a reply is made of.

    `thinking`: the prompt has opened a think block; with `think` and not `thinking` the model may
    open one itself. `answer`: the JSON Schema that answer text must satisfy; None: free text.
    """

    markup: ToolCallFormat
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = NO_CALLS
    answer: json_schema.Schema | None = None
    answer_where: str = "response_format.json_schema.schema"
    think: ReasoningTags | None = None
    thinking: bool = False

    def cache_key(self) -> bytes:
        """Return a digest that two forms share only if they admit the same replies."""
        tools = [(tool.name, tool.parameters) for tool in self.choice.callable_tools(self.tools)]
        policy = (self.choice.mode, self.choice.parallel, bool(self.tools))
        admitted = json.dumps([repr(self.markup), policy, tools, self.answer, self.thinking,
                               repr(self.think)])  # fmt: skip
        return hashlib.blake2b(admitted.encode(), digest_size=32).digest()


class UnsupportedFormat(ValueError):
    """A reply form that can't be enforced; `where` is the field and JSON pointer at fault."""

    def __init__(self, reason: str, where: str, *, tool: str | None) -> None:
        super().__init__(reason)
        self.where = where
        self.tool = tool


def reply_grammar(form: ReplyFormat) -> Expression:
    """Say a whole reply of this form; raise UnsupportedFormat for an unenforceable schema."""
    body = _body(form)
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


def _body(form: ReplyFormat) -> Expression:
    tools = form.choice.callable_tools(form.tools)
    if not tools:
        return _answer(form)
    head, trigger = form.markup.prefix, form.markup.trigger
    arguments = [(tool.name, _arguments(tool, form.markup)) for tool in tools]
    calls = _Calls(form.markup, arguments, parallel=form.choice.parallel)
    if form.choice.mode == "required":
        return sequence(_spelled(head), calls)
    ways = [_spelled(head)]
    if trigger and form.answer is None:
        ways.append(_text_before_calls(form))
    answer = _answer(form)
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
    text = text_until_marker(markup.trigger, _barred(form), _excluded(form, markup.trigger))
    return sequence(text, _spelled(markup.prefix[len(markup.trigger) :]))


def _marked_text(form: ReplyFormat) -> Expression:
    """Say text before calls with its marks round it."""
    closing = form.markup.text_closing
    text = text_until_marker(closing, _barred(form), _excluded(form, closing))
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


def _answer(form: ReplyFormat) -> Expression:
    markup = form.markup
    if form.answer is None:
        excluded = _excluded(form, markup.trigger)
        if markup.answer_closing:
            closed = text_until_marker(
                markup.answer_closing, _barred(form), (markup.trigger, *excluded)
            )
            return sequence(literal(markup.answer_opening), closed)
        text = text_without_marker(markup.trigger, _barred(form), excluded)
        return sequence(literal(markup.answer_opening), text)
    try:
        value = json_schema.value_grammar(form.answer)
    except UnsupportedSchema as fault:
        raise UnsupportedFormat(fault.reason, _at(form.answer_where, fault), tool=None) from None
    return sequence(literal(markup.answer_opening), value, literal(markup.answer_closing))


def _barred(form: ReplyFormat) -> str:
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


def _arguments(tool: Tool, markup: ToolCallFormat) -> Expression:
    try:
        if markup.elements:
            return elements_grammar(tool.parameters, markup.elements)
        if markup.bare_keys:
            return bare_key_grammar(tool.parameters, markup.bare_keys)
        return json_schema.arguments_grammar(tool.parameters, markup.notation)
    except UnsupportedSchema as fault:
        raise UnsupportedFormat(fault.reason, _at(tool.where, fault), tool=tool.name) from None


def _at(where: str, fault: UnsupportedSchema) -> str:
    return where if fault.pointer == "/" else f"{where}#{fault.pointer}"
