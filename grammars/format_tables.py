"""The automata of the string formats, compiled once and kept beside the code.

`python -m falsework.grammars.format_tables` writes format_tables.json anew; a test holds it to the
patterns of string_formats.
"""

import functools
import json
from pathlib import Path
from typing import Any

from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import CharDFA
from falsework.grammars.pattern_dfa import pattern_dfa
from falsework.grammars.string_formats import STRING_FORMATS

TABLES = Path(__file__).with_name("format_tables.json")
_BUILD_STEPS = 100_000_000
"""A format that isn't in the tables is compiled once a process, not at a request's cost."""


def whole(name: str) -> str:
    """Return the pattern of a format's whole strings."""
    return f"^(?:{STRING_FORMATS[name].pattern})$"


@functools.cache
def format_dfa(name: str) -> CharDFA:
    """Return the automaton of the strings that every validator takes for a format."""
    kept = _tables().get(name)
    if kept is None or kept["pattern"] != whole(name):
        return compiled(name)
    rows = tuple(tuple((low, high, target) for low, high, target in row) for row in kept["rows"])
    return CharDFA(rows, tuple(bool(ends) for ends in kept["accepting"]))


@functools.cache
def loose_format_dfa(name: str) -> CharDFA:
    """Return an automaton with all strings that any validator takes for a format."""
    one = STRING_FORMATS[name]
    if one.certain:
        return format_dfa(name)
    return pattern_dfa(one.loose, Budget(_BUILD_STEPS), upper=True)


def compiled(name: str) -> CharDFA:
    """Compile a format from its pattern."""
    dfa = pattern_dfa(whole(name), Budget(_BUILD_STEPS))
    return dfa.minimal(rounds=len(dfa.rows))


@functools.cache
def _tables() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(TABLES.read_text()) if TABLES.exists() else {}
    return made


def main() -> None:
    """Write the tables."""
    tables = {}
    for name in STRING_FORMATS:
        dfa = compiled(name)
        accepting = [int(ends) for ends in dfa.accepting]
        tables[name] = {"pattern": whole(name), "rows": dfa.rows, "accepting": accepting}
    lines = [
        f"{json.dumps(name)}: {json.dumps(one, separators=(',', ':'))}"
        for name, one in tables.items()
    ]
    TABLES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
