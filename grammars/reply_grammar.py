"""What one reply may be: think block, answer and calls, for every tool_choice and every markup."""

from collections.abc import Sequence

from falsework.grammars.call_formats import (
    PLACEHOLDERS,
    ToolCallFormat,
    literal_parts,
)
from falsework.grammars.dfa import DEAD, DFA, START, compile_dfa
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
from falsework.grammars.reply_format import ReplyFormat, ReplyPlan, UnsupportedFormat, plan_reply
from falsework.grammars.schema_plan import SchemaPlan


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
    barred, excluded = barred_characters(form), excluded_markers(form, markup.trigger)
    text = text_until_marker(markup.trigger, barred, excluded)
    return sequence(text, _spelled(markup.prefix[len(markup.trigger) :]))


def _marked_text(form: ReplyFormat) -> Expression:
    """Say text before calls with its marks round it."""
    closing = form.markup.text_closing
    text = text_until_marker(closing, barred_characters(form), excluded_markers(form, closing))
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
    excluded = excluded_markers(form, markup.trigger)
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


def excluded_markers(form: ReplyFormat, marker: str) -> tuple[str, ...]:
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
