"""A whole reply as one Lark grammar for llguidance: what `reply_grammar` says as an automaton."""

import json
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from falsework.grammars.call_formats import (
    PLACEHOLDERS,
    ReasoningTags,
    ToolCallFormat,
    literal_parts,
)
from falsework.grammars.events import Tool
from falsework.grammars.llguidance_grammar import (
    UnsupportedGrammar,
    byte_tokenizer,
    compile_grammar,
    json_rule,
)
from falsework.grammars.reply_format import ReplyFormat, ReplyPlan, UnsupportedFormat
from falsework.grammars.reply_grammar import (
    alternative_formats,
    barred_characters,
    excluded_markers,
)
from falsework.grammars.schema_errors import UnsupportedSchema
from falsework.grammars.schema_plan import SchemaPlan
from falsework.grammars.text_grammar import TextGrammar

Schema = Mapping[str, Any] | bool
EMPTY = '""'


@dataclass
class _Rules:
    """The rules of a Lark grammar while it is put together, and the grammars that it refers to."""

    lines: list[str] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, body: str, options: str = "") -> str:
        """Add a rule and return its name."""
        self.lines.append(f"{name}{options}: {body}")
        return name

    def serialized(self) -> str:
        """Return the grammar as llguidance reads it."""
        return json.dumps({"grammars": [{"lark_grammar": "\n".join(self.lines)}, *self.others]})


def lark_reply(form: ReplyFormat, plan: ReplyPlan) -> str:
    """Say a whole reply of this form; raise UnsupportedFormat where it would be ambiguous."""
    rules = _Rules()
    if form.think:
        excluded = form.markup.excluded_before(form.think.closing)
        rules.add("start", _thought(rules, form.think, excluded, opened=form.thinking))
    else:
        rules.add("start", "body")
    ways = " | ".join(_ways(rules, form, plan))
    rules.add("body", f"{_optional(form.markup.leading)} ({ways})")
    return rules.serialized()


def _thought(rules: _Rules, think: ReasoningTags, excluded: Sequence[str], *, opened: bool) -> str:
    """Return what begins with a think block; where it isn't open yet, the model may do without."""
    block = _until(rules, "think", think.closing, without=excluded)
    gaps = [_literal(gap) for gap in dict.fromkeys((think.gap, *think.other_gaps))]
    thought = f"{block} ({' | '.join(gap or EMPTY for gap in gaps)}) body"
    if opened:
        return thought
    stem = think.opening.rstrip("\n")
    opening = f"{_literal(stem)} {_optional(think.opening[len(stem) :])}"
    return f"{_optional(think.leading)} {opening} {thought} | body"


def _ways(rules: _Rules, form: ReplyFormat, plan: ReplyPlan) -> list[str]:
    """Return what a reply may be behind its think block."""
    answer = _exported(plan.answer, form.answer_where, None) if plan.answer else None
    tools = form.choice.callable_tools(form.tools)
    if not tools:
        return [_text(rules, form.text)] if form.text else [_answer(rules, form, answer)]
    markup = form.markup
    for number, tool in enumerate(tools):
        _argument_rule(rules, number, tool, markup, plan)
    calls = _calls(rules, "calls", markup, tools, parallel=form.choice.parallel)
    head, trigger = markup.prefix, markup.trigger
    ways = [f"{_spelled(head)} {calls}"]
    if form.choice.mode == "required":
        return ways
    marked = ""
    if trigger and answer is None:
        text = _text_before_calls(rules, form)
        if markup.text_opening:
            marked = f"({text})?"
            ways.append(f"{text} {_spelled(head)} {calls}")
        else:
            ways.append(f"{text} {_spelled(head[len(trigger) :])} {calls}")
    if answer is not None and not trigger:
        _refuse_ambiguity(answer, head, form.answer_where)
    for number, habit in enumerate(alternative_formats(form)):
        said = _calls(rules, f"habit_{number}", habit, tools, parallel=form.choice.parallel)
        ways.append(f"{marked} {_spelled(habit.prefix)} {said}")
    return [*ways, _answer(rules, form, answer)]


def _text_before_calls(rules: _Rules, form: ReplyFormat) -> str:
    """Return text with its marks round it, or up to and with the trigger."""
    markup = form.markup
    end = markup.text_closing if markup.text_opening else markup.trigger
    text = _until(rules, "text", end, barred_characters(form), excluded_markers(form, end))
    return f"{_literal(markup.text_opening)} {text}"


def _argument_rule(
    rules: _Rules, number: int, tool: Tool, markup: ToolCallFormat, plan: ReplyPlan
) -> None:
    """Add the rule of a tool's arguments, or the grammar of its text."""
    if tool.grammar:
        rules.others.append({"name": f"tool_{number}", "lark_grammar": tool.grammar.lark()})
        return
    if markup.elements or markup.bare_keys:
        msg = "this model's calls can't spell a schema that is recursive or as large"
        raise UnsupportedFormat(msg, tool.where, tool=tool.name)
    schema = _exported(plan.arguments[tool.name], tool.where, tool.name)
    if markup.notation.bare_arguments:
        _keyword_arguments(rules, f"arguments_{number}", schema, tool)
    else:
        rules.add(f"arguments_{number}", json_rule(schema))


def _exported(plan: SchemaPlan, where: str, tool: str | None) -> Schema:
    try:
        return plan.llguidance.schema
    except UnsupportedSchema as fault:
        raise UnsupportedFormat(fault.reason, where, tool=tool) from None


def _calls(
    rules: _Rules, name: str, markup: ToolCallFormat, tools: Sequence[Tool], *, parallel: bool
) -> str:
    """Add a rule for calls, from the first one's name to their end.

    The text of a custom tool's grammar is the last of a reply: nothing else tells where it ends.
    """
    begun = [f"{_literal(tool.name)} {_spelled(markup.after_name)}" for tool in tools]
    whole = [f"{begun[i]} arguments_{i}" for i, tool in enumerate(tools) if not tool.grammar]
    texts = [f"{begun[i]} @tool_{i}" for i, tool in enumerate(tools) if tool.grammar]
    separators = (markup.separator, *markup.other_separators)
    between = f"({' | '.join(_spelled(one + markup.before_name) or EMPTY for one in separators)})"
    several = parallel and markup.parallel
    ways, earlier = [], ""
    if whole:
        call_id = f"({_spelled(markup.optional_id)})?" if markup.optional_id else ""
        behind = f"{call_id} {_literal(markup.after_arguments)}"
        call = rules.add(f"{name}_one", f"({' | '.join(whole)}) {behind}")
        again = f" ({between} {call})*" if several else ""
        ways.append(f"{call}{again} {_literal(markup.closing)}")
        earlier = f"({call} {between})* " if several else ""
    if texts:
        ways.append(f"{earlier}({' | '.join(texts)})")
    return rules.add(name, " | ".join(ways))


def _keyword_arguments(rules: _Rules, name: str, schema: Schema, tool: Tool) -> None:
    """Add a rule for `a=1, b="x"`: the properties in order, with values as JSON spells them."""
    root = _opened(schema)
    properties: Mapping[str, Any] = root.get("properties", {})
    required = root.get("required", ())
    if not _is_plain(root):
        msg = "this model's calls have no spelling for these arguments"
        raise UnsupportedFormat(msg, tool.where, tool=tool.name)
    # `first`: nothing is said yet; `later`: a member stands before, so a comma must come.
    for number, (member, value) in enumerate(properties.items()):
        below = {"$defs": root.get("$defs", {}), **value} if isinstance(value, Mapping) else value
        rules.add(f"{name}_value_{number}", json_rule(below))
        said = f"{_literal(f'{member}=')} {name}_value_{number} {name}_later_{number + 1}"
        for way, comma in (("first", ""), ("later", f"{_literal(', ')} ")):
            skipped = "" if member in required else f" | {name}_{way}_{number + 1}"
            rules.add(f"{name}_{way}_{number}", f"{comma}{said}{skipped}")
    for way in ("first", "later"):
        rules.add(f"{name}_{way}_{len(properties)}", '""')
    rules.add(name, f"{name}_first_0")


def _opened(schema: Schema) -> Mapping[str, Any]:
    """Return the object of a schema that may be no more than a reference to it."""
    root = schema if isinstance(schema, Mapping) else {}
    definitions = root.get("$defs", {})
    name = root.get("$ref", "").removeprefix("#/$defs/")
    return {**definitions[name], "$defs": definitions} if name in definitions else root


def _is_plain(root: Mapping[str, Any]) -> bool:
    """Tell whether keyword arguments can say an object: named members, references to $defs."""
    names = root.get("properties", {})
    named = set(root.get("required", ())) <= set(names)
    keywords = {"type", "properties", "required", "additionalProperties", "$defs"}
    references = re.findall(r'"\$ref": "([^"]*)"', json.dumps(dict(root)))
    return (
        named
        and root.keys() <= keywords
        and all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
        and all(one.startswith("#/$defs/") for one in references)
    )


def _text(rules: _Rules, grammar: TextGrammar) -> str:
    """Add a client's grammar, which has names of its own."""
    rules.others.append({"name": "text", "lark_grammar": grammar.lark()})
    return "@text"


def _answer(rules: _Rules, form: ReplyFormat, schema: Schema | None) -> str:
    markup = form.markup
    opening, closing = _literal(markup.answer_opening), _literal(markup.answer_closing)
    if schema is not None:
        rules.add("answer", json_rule(schema))
        return f"{opening} answer {closing}"
    barred, excluded = barred_characters(form), excluded_markers(form, markup.trigger)
    without = tuple(marker for marker in (markup.trigger, *excluded) if marker)
    if markup.answer_closing:
        return f"{opening} {_until(rules, 'answer', markup.answer_closing, barred, without)}"
    rules.lines.append(f"ANSWER: /{_first(barred)}(?s:.*)/{_not_holding(without)}")
    return f"{opening} ANSWER"


def _until(
    rules: _Rules, name: str, marker: str, barred: str = "", without: Sequence[str] = ()
) -> str:
    """Add a rule for text up to and with the first marker, which begins with none of `barred`.

    It holds no marker of `without`.
    """
    empty = "" if barred and marker[0] in barred else "?"
    text = f"(?:{_first(barred)}(?s:.*)){empty}" if barred else "(?s:.*)"
    terminal = f"UNTIL_{name.upper()}"
    rules.lines.append(f"{terminal}: /{text}{_escaped(marker)}/{_not_holding(without)}")
    return rules.add(f"until_{name}", terminal, "[lazy]")


def _not_holding(markers: Sequence[str]) -> str:
    """Return what keeps a terminal's text free of markers."""
    return "".join(f" & ~/(?s:.*){_escaped(marker)}(?s:.*)/" for marker in markers)


def _first(barred: str) -> str:
    return f"[^{_escaped(barred)}]"


def _escaped(text: str) -> str:
    """Return a regex for exactly this text."""
    return "".join(
        f"\\x{{{ord(one):x}}}" if ord(one) < 0x20 or one == "/" else re.escape(one)  # noqa: PLR2004
        for one in text
    )


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def _optional(text: str) -> str:
    return f"({_literal(text)})?" if text else ""


def _spelled(literal: str) -> str:
    """Return a literal in which placeholders may stand."""
    return " ".join(
        "/{}{{{},{}}}/".format(*PLACEHOLDERS[part]) if part in PLACEHOLDERS else _literal(part)
        for part in literal_parts(literal)
    )


def _refuse_ambiguity(answer: Schema, head: str, where: str) -> None:
    """Refuse an answer that may begin like a call of a markup without a trigger."""
    try:
        matcher = compile_grammar(byte_tokenizer(), _alone(json_rule(answer)))
    except UnsupportedGrammar as fault:
        raise UnsupportedFormat(str(fault), where, tool=None) from None
    said = head.encode()
    if matcher.try_consume_tokens(list(said)) == len(said):
        msg = (
            f"with this model a reply that begins {head!r} is a call, and this format's JSON may "
            "begin like it; use tool_choice required or none, or another format"
        )
        raise UnsupportedFormat(msg, where, tool=None)


def _alone(rule: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": f"start: {rule}"}]})
