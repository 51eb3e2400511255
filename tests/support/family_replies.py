"""Replies of every family: the tools they call, what they may be, and what is heard of them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from falsework.grammars.dfa import DFA, compile_dfa
from falsework.grammars.events import (
    Arguments,
    Call,
    CallBegins,
    CallEnds,
    Event,
    Reasoning,
    Text,
    Tool,
)
from falsework.grammars.output_parser import OutputParser
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.reply_grammar import reply_grammar
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.dialects import Dialect

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"enum": ["celsius", "fahrenheit", "°"]},
        "detail": {
            "type": "object",
            "properties": {"wind": {"type": "boolean"}, "levels": {"items": {"type": "number"}}},
        },
        "note": {"type": ["string", "null"]},
    },
    "required": ["city"],
}
TOOLS = (
    Tool("get_weather", "The weather of a city", WEATHER),
    Tool("get", "Gets", {}),
    Tool("get_wea", "Its name begins another's", {"properties": {"x": {"type": "integer"}}}),
)


@dataclass
class Heard:
    """A reply as the fold of its events."""

    text: str = ""
    reasoning: str = ""
    begun: list[Call] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


def fold(events: Iterable[Event]) -> Heard:
    heard = Heard()
    for event in events:
        match event:
            case Text(text):
                heard.text += text
            case Reasoning(text):
                heard.reasoning += text
            case CallBegins(index, name):
                assert index == len(heard.begun) == len(heard.calls)
                heard.begun.append(Call(name, ""))
            case Arguments(index, text):
                assert index == len(heard.begun) - 1
                begun = heard.begun[index]
                heard.begun[index] = Call(begun.name, begun.arguments + text)
            case CallEnds(index):
                heard.calls.append(heard.begun[index])
    return heard


def read(form: ReplyFormat, pieces: Sequence[str], *, complete: bool = True) -> Heard:
    reader = OutputParser(form)
    events = [event for piece in pieces for event in reader.feed(piece)]
    return fold([*events, *reader.close(complete=complete)])


def parsed(calls: Iterable[Call]) -> list[tuple[str, object]]:
    """Return calls with their arguments as values: some families order them otherwise."""
    return [(call.name, json.loads(call.arguments)) for call in calls]


def form_of(
    dialect: Dialect,
    mode: str = "auto",
    *,
    parallel: bool = True,
    only: frozenset[str] | None = None,
) -> ReplyFormat:
    choice = ToolChoice(mode, only=only, parallel=parallel)  # type: ignore[arg-type]
    thinks = dialect.think is not None
    return ReplyFormat(dialect.markup, TOOLS, choice, think=dialect.think, thinking=thinks)


def thought(form: ReplyFormat, thoughts: str = "Hm. </thin") -> str:
    return thoughts + form.think.closing + form.think.gap if form.think else ""


_AUTOMATA: dict[str, DFA] = {}


def automaton_of(form: ReplyFormat) -> DFA:
    key = form.cache_key()
    if key not in _AUTOMATA:
        _AUTOMATA[key] = compile_dfa(reply_grammar(form))
    return _AUTOMATA[key]
