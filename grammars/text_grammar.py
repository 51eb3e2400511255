"""A grammar that a client gives for text: Lark, a regex, or a list of choices."""

import json
from dataclasses import dataclass
from typing import Literal

import llguidance

Syntax = Literal["lark", "regex", "choice"]


@dataclass(frozen=True)
class TextGrammar:
    """What a text may be; `texts` are the choices, otherwise the one Lark grammar or regex.

    A regex is matched whole, in the syntax of Rust's crate `regex` (no look-around, no references
    back); Lark is llguidance's dialect of it. `where` is the client's field.
    """

    syntax: Syntax
    texts: tuple[str, ...]
    where: str

    def lark(self) -> str:
        """Return the grammar as Lark, its first rule `start`."""
        if self.syntax == "lark":
            return self.texts[0]
        if self.syntax == "regex":
            return f"start: /{llguidance.regex_to_lark(self.texts[0], '')}/"
        return f"start: {' | '.join(json.dumps(text) for text in self.texts)}"
