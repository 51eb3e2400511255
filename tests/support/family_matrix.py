"""What the published template of every family makes of us: recognised, prompts, round trips."""

import argparse
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2

from falsework.grammars.call_formats import NUMBER, ToolCallFormat
from falsework.grammars.dfa import START, compile_dfa
from falsework.grammars.events import Call
from falsework.grammars.masks import TokenMasks, tokens_in_mask
from falsework.grammars.output_parser import OutputParseError
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.reply_grammar import reply_grammar
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.detection import detect_renderer
from falsework.prompts.messages import Message
from falsework.prompts.renderer import ChatTemplateError, PromptRenderer
from falsework.prompts.tokenizers import build_vocabulary
from support import model_families
from support.family_conversations import (
    CONVERSATIONS,
    ORDINARY,
    TOOLS,
    Conversation,
    as_openai,
    described,
)
from support.family_replies import parsed, read
from support.model_families import FAMILIES, Family

_REFUSALS = (jinja2.TemplateError, TypeError, KeyError, ValueError, AttributeError)
SHAPES = [
    {"as_text": as_text, "empty_content": content}
    for as_text in (False, True)
    for content in ("", None)
]
SINGLE = (Call("get_weather", '{"city": "Zürich \\"é\\"", "days": 3}'),)
_QUESTION = "What is the weather?"
PARALLEL = (*SINGLE, Call("get_time", '{"place": "Bern"}'))


@dataclass
class Row:
    """One family's line of the matrix; `different` are conversations that are laid out otherwise.

    `refused` are those that we refuse, `skipped` those that the family's own template refuses.
    """

    family: Family
    dialect: str
    knows_tools: bool
    thinks: bool
    refused: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    trips: dict[str, bool | None] = field(default_factory=dict)

    @property
    def equal(self) -> int:
        """How many prompts are the family's own, token for token."""
        return len(CONVERSATIONS) - len(self.different) - len(self.skipped) - len(self.refused)

    @property
    def recognised(self) -> bool:
        """Tell whether the dialect is the one expected."""
        return self.dialect == self.family.dialect


def row(family: Family) -> Row:
    """Measure one family."""
    tokenizer = model_families.tokenizer(family)
    renderer = detect_renderer(tokenizer)
    made = Row(
        family, renderer.dialect.name, renderer.knows_tools, renderer.dialect.think is not None
    )
    for name, conversation in CONVERSATIONS.items():
        if not renderer.knows_tools:  # where the template has no place for tools, none are offered
            conversation = replace(conversation, tools=())  # noqa: PLW2901
        own = _reference(tokenizer, conversation, renderer)
        try:
            ours = renderer.render(
                conversation.messages, conversation.tools, think=conversation.think
            )
        except ChatTemplateError:
            made.refused.append(name)
            continue
        if own is None:
            made.skipped.append(name)
        elif own != ours.text:
            made.different.append(name)
    made.trips = _round_trips(tokenizer, renderer)
    return made


def _reference(tokenizer: Any, conversation: Conversation, renderer: PromptRenderer) -> str | None:
    """Return the prompt that the family's own template makes, None where it refuses.

    It is given what vLLM's server would: OpenAI's messages with arguments as objects, or as text
    where that fails; a model that can think is told by the request whether it shall.
    """
    if not conversation.think and not {"enable_thinking", "thinking"} & renderer.template.variables:
        return None  # the family has no way to say so
    calls = [call for message in conversation.messages for call in message.calls]
    switches: dict[str, Any] = {}
    if renderer.dialect.think:
        switches = {"enable_thinking": conversation.think, "thinking": conversation.think}
    for shape in SHAPES:
        try:
            text: str = tokenizer.apply_chat_template(
                as_openai(_with_ids(conversation.messages, renderer), **shape),
                tools=described(conversation.tools) or None,
                tokenize=False, add_generation_prompt=True, **switches,
            )  # fmt: skip
        except _REFUSALS:
            continue
        twice = any('\\"city\\"' in text or '\\"place\\"' in text for _ in calls)
        if all(call.name in text for call in calls) and not twice and "None<" not in text:
            return _as_advised(text, conversation, renderer)
    return None


def _with_ids(messages: tuple[Message, ...], renderer: PromptRenderer) -> tuple[Message, ...]:
    """Return messages with the ids that the family's own server gives to calls."""
    made: list[Message] = []
    renamed: dict[str, str] = {}
    number = 0
    for message in messages:
        ids = []
        for call, call_id in zip(message.calls, message.call_ids, strict=True):
            renamed[call_id] = renderer.dialect.past_call_id(call.name, number, call_id)
            ids.append(renamed[call_id])
            number += 1
        answered = renamed.get(message.call_id, message.call_id)
        made.append(replace(message, call_ids=tuple(ids), call_id=answered))
    return tuple(made)


def _as_advised(text: str, conversation: Conversation, renderer: PromptRenderer) -> str:
    """Return a prompt with what the makers advise over their templates.

    Meta and OpenAI document results as they are, not as JSON strings; DeepSeek asks to open the
    think block of R1 at every output.
    """
    if renderer.features.quotes_results:
        text = _unquoted(text, conversation)
    think = renderer.dialect.think
    opens = renderer.dialect.opens_reasoning and conversation.think and think
    if opens and think and not text.rstrip().endswith(think.opening.rstrip()):
        text += think.opening
    return text


def _unquoted(text: str, conversation: Conversation) -> str:
    """Return a prompt with results as their makers document them, not as a JSON string again."""
    for message in conversation.messages:
        if message.role == "tool":
            text = text.replace(json.dumps(message.text, ensure_ascii=False), message.text)
    return text


def _native(tokenizer: Any, renderer: PromptRenderer, calls: tuple[Call, ...]) -> str:
    """Return calls as the family's template writes them; as its dialect does where it has none."""
    past = renderer.dialect.past_calls
    if past is None:
        return renderer.dialect.markup.render(calls)
    ids = tuple(f"call{number:05}" for number in range(len(calls)))
    messages = (Message("user", _QUESTION), Message("assistant", "", calls, ids))
    laid = as_openai(messages, as_text=past.as_text, empty_content=past.empty_content)
    whole: str = tokenizer.apply_chat_template(laid, tools=described(TOOLS), tokenize=False)
    return _calls_in(whole.partition(_QUESTION)[2], renderer.dialect.markup)


def _calls_in(turn: str, markup: ToolCallFormat) -> str:
    """Return the part of a turn from the first mark of its calls to the last."""
    for spelling in (markup, *markup.habits):
        begin = turn.find(spelling.prefix.partition(NUMBER)[0])
        if begin >= 0:
            close = spelling.closing or spelling.after_arguments or "}"
            return turn[begin : turn.rfind(close) + len(close)]
    return turn


def _round_trips(tokenizer: Any, renderer: PromptRenderer) -> dict[str, bool | None]:
    dialect = renderer.dialect
    vocabulary = build_vocabulary(tokenizer, dialect.markers)
    form = ReplyFormat(
        dialect.markup, TOOLS, ToolChoice("auto"), think=dialect.think, thinking=False
    )
    automaton = compile_dfa(reply_grammar(form), vocabulary.alphabet)
    masks = TokenMasks(automaton, vocabulary, len(vocabulary.tokens) // 32 + 1)

    def trip(reply: str, calls: tuple[Call, ...]) -> bool:
        try:
            return automaton.accepts(reply) and parsed(read(form, list(reply)).calls) == parsed(
                calls
            )
        except OutputParseError:
            return False

    def in_mask(reply: str) -> bool:
        state = START
        for token in tokenizer.encode(reply, add_special_tokens=False):
            if token not in tokens_in_mask(masks.mask_for(state)):
                return False
            state = automaton.step(state, vocabulary.tokens[token])
        return True

    thought = (
        dialect.think.opening + "Hm." + dialect.think.closing + dialect.think.gap
        if dialect.think
        else ""
    )
    single = _native(tokenizer, renderer, SINGLE)
    trips: dict[str, bool | None] = {"single": trip(single, SINGLE), "mask": in_mask(single)}
    several = dialect.markup.parallel and not dialect.one_call_a_message
    trips["parallel"] = trip(_native(tokenizer, renderer, PARALLEL), PARALLEL) if several else None
    marked = dialect.markup.answer_opening and not dialect.markup.text_opening
    after_text = dialect.markup.trigger and not marked
    trips["after text"] = (
        trip(dialect.markup.render_text("Let me look.\n") + single, SINGLE) if after_text else None
    )
    trips["after thought"] = trip(thought + single, SINGLE) if dialect.think else None
    return trips


_HEADINGS = (
    "template", "vocabulary", "dialect", "8 ordinary", "prompts", "single", "parallel",
    "after text", "after thought", "in mask",
)  # fmt: skip
COLUMNS = ("single", "parallel", "after text", "after thought", "mask")
MARKS = {True: "yes", False: "**no**", None: "-"}


def table(rows: list[Row]) -> str:
    """Return the matrix as Markdown."""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + " --- |" * len(_HEADINGS)]
    total = len(CONVERSATIONS)
    for one in rows:
        ordinary = len([name for name in ORDINARY if name not in one.refused])
        said = [MARKS[one.trips[column]] for column in COLUMNS]
        own = "own" if one.family.own else f"nearest: {one.family.vocabulary}"
        cells = [one.family.name, own, one.dialect, f"{ordinary}/{len(ORDINARY)}",
                 f"{one.equal}/{total - len(one.skipped)}", *said]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the matrix, or put it into a document between its two marks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="part of a template's name")
    parser.add_argument("--into", type=Path, help="the document to write it into")
    parser.add_argument("--explain", action="store_true", help="name the conversations at fault")
    options = parser.parse_args()
    rows = [row(family) for family in FAMILIES if options.only in family.name]
    sys.stdout.write(table(rows) + "\n")
    if options.explain:
        for one in rows:
            sys.stdout.write(
                f"{one.family.name}: refused {one.refused}, different {one.different}, "
                f"refused by the template {one.skipped}\n"
            )
    if options.into:
        before, _, rest = options.into.read_text("utf-8").partition("<!-- families -->\n")
        _, mark, after = rest.partition("<!-- /families -->")
        text = f"{before}<!-- families -->\n{table(rows)}\n{mark}{after}"
        options.into.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
