"""How a model family marks calls in its text.

The one definition that prompt, constraint, history and reader are all made from.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from falsework.grammars import json_values
from falsework.grammars.events import Call


@dataclass(frozen=True)
class ToolCallFormat:
    """The literals round calls: `opening`, then calls with `separator` between, then `closing`.

    One call is `before_name`, the tool's name, `after_name`, the arguments, `after_arguments`.
    `trigger` begins the calls (a prefix of `opening + before_name`) and stands in no answer text,
    so calls may follow text; empty: calls stand only at the beginning of a reply.
    `barred` are first characters that no answer text has: what begins like a call must be one.
    `habits` are other spellings that models of the family fall into where they may also answer in
    words: they are read as calls, and never written.
    """

    before_name: str
    after_name: str
    after_arguments: str
    opening: str = ""
    separator: str = "\n"
    closing: str = ""
    trigger: str = ""
    barred: str = ""
    notation: json_values.Notation = json_values.JSON
    habits: tuple["ToolCallFormat", ...] = ()

    def __post_init__(self) -> None:
        """Refuse a trigger that doesn't begin the calls."""
        assert self.prefix.startswith(self.trigger), "the trigger must begin the calls"

    @property
    def prefix(self) -> str:
        """Everything from the start of the calls to the first tool's name."""
        return self.opening + self.before_name

    def render(self, calls: Sequence[Call]) -> str:
        """Spell calls as the model is trained to; `Reader` reads them back."""
        said = [
            self.before_name + call.name + self.after_name + self._arguments(call)
            + self.after_arguments
            for call in calls
        ]  # fmt: skip
        return self.opening + self.separator.join(said) + self.closing

    def _arguments(self, call: Call) -> str:
        """Return the arguments' text: untouched, but for notations that aren't JSON."""
        if not self.notation.bare_arguments:
            return call.arguments
        try:
            said = json.loads(call.arguments or "{}")
        except ValueError:
            return call.arguments
        if not isinstance(said, dict):
            return call.arguments
        return ", ".join(f"{k}={json_values.dumps(v, self.notation)}" for k, v in said.items())


@dataclass(frozen=True)
class ReasoningTags:
    """The literals round a think block; `gap` stands between its end and the answer."""

    opening: str = "<think>\n"
    closing: str = "</think>"
    gap: str = "\n\n"
