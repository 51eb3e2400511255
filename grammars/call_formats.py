"""How a model family marks calls, answers and thoughts in its text.

The one definition that prompt, constraint, history and parser are all made from.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from falsework.grammars import json_values
from falsework.grammars.events import Call

NUMBER = "{n}"
"""Stands in a literal for the call's number in its message, from 0; parsed: any 1 to 4 digits."""
CALL_ID = "{id}"
"""Stands in a literal for an id that the model makes up: 9 letters and digits (Mistral's form)."""
WRITTEN_ID = "call00000"
"""The id written where history has none of this form."""

PLACEHOLDERS = {NUMBER: ("[0-9]", 1, 4), CALL_ID: ("[a-zA-Z0-9]", 9, 9)}
"""What stands for a placeholder: a class of characters, and how many of them."""
NO_MATCH = -1


def literal_parts(literal: str) -> list[str]:
    """Cut a literal into plain pieces and placeholders."""
    return [part for part in re.split(r"(\{n\}|\{id\})", literal) if part]


def match_literal(literal: str, text: str) -> int | None:
    """Return how many characters of `text` are the literal; None: too short to say; NO_MATCH."""
    at = 0
    for part in literal_parts(literal):
        if part not in PLACEHOLDERS:
            rest = text[at : at + len(part)]
            if rest != part:
                return None if part.startswith(rest) and at + len(rest) == len(text) else NO_MATCH
            at += len(part)
            continue
        characters, low, high = PLACEHOLDERS[part]
        found = re.match(f"{characters}{{0,{high}}}", text[at:])
        length = found.end() if found else 0
        if at + length == len(text) and length < high:
            return None
        if length < low:
            return NO_MATCH
        at += length
    return at


@dataclass(frozen=True)
class ElementNotation:
    """Arguments as elements, one each: `before_key`, name, `after_key`, value, `after_value`.

    Strings stand raw, everything else as JSON; the tool's schema tells which, or, where the family
    marks it, `after_key` is that of other values and `after_string_key` that of strings.
    `python_words`: its template writes True, False and None for values outside of lists and
    objects; they are parsed as well as true, false and null.
    """

    before_key: str
    after_key: str
    after_value: str
    after_string_key: str = ""
    python_words: bool = False

    @property
    def literals(self) -> tuple[str, ...]:
        """Return all literals of an element."""
        return (self.before_key, self.after_key, self.after_string_key, self.after_value)

    def opening(self, name: str, *, string: bool) -> str:
        """Return what stands before a value."""
        marked = self.after_string_key if string else ""
        return self.before_key + name + (marked or self.after_key)

    def render(self, arguments: dict[str, Any]) -> str:
        """Return the elements of an arguments object."""
        return "".join(
            self.opening(name, string=isinstance(value, str))
            + (value if isinstance(value, str) else json_values.dumps(value))
            + self.after_value
            for name, value in arguments.items()
        )


@dataclass(frozen=True)
class BareKeyNotation:
    """Arguments as `key:value,…` with keys in alphabetical order; `quote` stands round strings.

    Strings are raw; lists and objects inside are spelled in the same way, in brackets and braces.
    """

    quote: str

    @property
    def literals(self) -> tuple[str, ...]:
        """Return all literals in which a special token may be spelled."""
        return (self.quote,)

    def render(self, arguments: dict[str, Any]) -> str:
        """Return the members of an arguments object."""
        ordered = sorted(arguments.items(), key=lambda member: member[0].lower())
        return ",".join(f"{key}:{self._value(value)}" for key, value in ordered)

    def _value(self, value: Any) -> str:
        if isinstance(value, str):
            return self.quote + value + self.quote
        if isinstance(value, dict):
            return "{" + self.render(value) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(self._value, value)) + "]"
        return json_values.dumps(value)


@dataclass(frozen=True)
class ToolCallFormat:
    """The literals round calls: `opening`, then calls with `separator` between, then `closing`.

    One call is `before_name`, the tool's name, `after_name`, the arguments, `after_arguments`;
    NUMBER and CALL_ID may stand in the two round the name and in `optional_id`.
    Calls may also have one of `other_separators` between them.
    `trigger` begins the calls (a prefix of `opening + before_name`) and stands in no answer text,
    so calls may follow text; empty: calls stand only at the beginning of a reply.
    `barred` are first characters that no answer text has: what begins like a call must be one.
    `leading`: blanks that a reply may begin with, before answer or calls. `optional_id`: what may
    stand between arguments and `after_arguments`.
    `answer_opening` and `answer_closing` stand round answer text; text before calls stands between
    `text_opening` and `text_closing` where the family has such marks.
    `excluded` are markers that neither answers nor thoughts hold beside the trigger.
    `parallel` False: the family says one call in a reply at most.
    `habits` are other spellings that models of the family fall into where they may also answer in
    words: they are read as calls, and never written.
    """

    before_name: str
    after_name: str
    after_arguments: str
    opening: str = ""
    separator: str = "\n"
    other_separators: tuple[str, ...] = ()
    closing: str = ""
    trigger: str = ""
    barred: str = ""
    leading: str = ""
    optional_id: str = ""
    notation: json_values.Notation = json_values.JSON
    elements: ElementNotation | None = None
    bare_keys: BareKeyNotation | None = None
    answer_opening: str = ""
    answer_closing: str = ""
    text_opening: str = ""
    text_closing: str = ""
    excluded: tuple[str, ...] = ()
    parallel: bool = True
    habits: tuple["ToolCallFormat", ...] = ()

    def __post_init__(self) -> None:
        """Refuse a trigger that doesn't begin the calls."""
        assert self.prefix.startswith(self.trigger), "the trigger must begin the calls"

    @property
    def prefix(self) -> str:
        """Everything from the start of the calls to the first tool's name."""
        return self.opening + self.before_name

    @property
    def name_ends(self) -> tuple[str, ...]:
        """What the text behind a tool's name may begin with."""
        marks = tuple(literal_parts(self.after_name)[:1])
        if not marks and self.elements:
            marks = (self.elements.before_key, self.after_arguments)
        assert marks, "a name has to end somewhere"
        return marks

    @property
    def literals(self) -> tuple[str, ...]:
        """Return all literals, in which special tokens of the vocabulary may be spelled."""
        own = self.elements or self.bare_keys
        of_elements = own.literals if own else ()
        of_habits = tuple(literal for habit in self.habits for literal in habit.literals)
        return (
            self.opening,
            self.before_name,
            self.after_name,
            self.after_arguments,
            self.separator,
            self.closing,
            self.optional_id,
            self.answer_opening,
            self.answer_closing,
            self.text_opening,
            self.text_closing,
            *of_elements,
            *of_habits,
        )

    def excluded_before(self, marker: str) -> tuple[str, ...]:
        """Return the excluded markers that `marker`, which ends a text, has no part of."""
        return tuple(one for one in self.excluded if one not in marker)

    def render(self, calls: Sequence[Call]) -> str:
        """Spell calls as the model is trained to; `OutputParser` reads them back."""
        spelled = [self._call(number, call) for number, call in enumerate(calls)]
        return self.opening + self.separator.join(spelled) + self.closing

    def render_answer(self, text: str) -> str:
        """Return answer text between its marks."""
        return self.answer_opening + text + self.answer_closing

    def render_text(self, text: str) -> str:
        """Return text that stands before calls, between its marks."""
        return self.text_opening + text + self.text_closing

    def _call(self, number: int, call: Call) -> str:
        before, after = (
            literal.replace(NUMBER, str(number)).replace(CALL_ID, WRITTEN_ID)
            for literal in (self.before_name, self.after_name)
        )
        return before + call.name + after + self._arguments(call) + self.after_arguments

    def _arguments(self, call: Call) -> str:
        """Return the arguments' text: untouched, but for notations that aren't JSON."""
        own = self.elements or self.bare_keys
        if own is None and self.notation is json_values.JSON:
            return call.arguments
        try:
            arguments = json.loads(call.arguments or "{}")
        except ValueError:
            return call.arguments
        if not isinstance(arguments, dict):
            return call.arguments
        if own:
            return own.render(arguments)
        if self.notation.bare_arguments:
            return ", ".join(
                f"{k}={json_values.dumps(v, self.notation)}" for k, v in arguments.items()
            )
        return json_values.dumps(arguments, self.notation)


@dataclass(frozen=True)
class ReasoningTags:
    """The literals round a think block; `gap` stands between its end and the answer.

    The model may leave out the newlines that end `opening`, may begin with `leading`, and may say
    one of `other_gaps` instead of `gap`.
    """

    opening: str = "<think>\n"
    closing: str = "</think>"
    gap: str = "\n\n"
    other_gaps: tuple[str, ...] = ()
    leading: str = ""
