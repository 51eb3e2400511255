"""The parts of a regular expression."""

from dataclasses import dataclass

from falsework.grammars.code_points import Ranges


class UnsupportedPattern(ValueError):
    """A pattern that no automaton over code points says exactly (backreferences, look-behind)."""


class InvalidPattern(ValueError):
    """No regular expression of ECMA 262."""


@dataclass(frozen=True)
class Characters:
    """One character of a set."""

    inside: Ranges


@dataclass(frozen=True)
class Sequence:
    """One part after the other."""

    parts: tuple["Pattern", ...]


@dataclass(frozen=True)
class Alternatives:
    """Any of the parts."""

    parts: tuple["Pattern", ...]


@dataclass(frozen=True)
class Repeat:
    """A part `low` to `high` times (None: without limit)."""

    part: "Pattern"
    low: int
    high: int | None


@dataclass(frozen=True)
class Assertion:
    r"""`^`, `$`, `\b` or `\B` (as `b` and `B`)."""

    kind: str


@dataclass(frozen=True)
class LookAhead:
    """`(?=…)`, or `(?!…)` when negative."""

    part: "Pattern"
    negative: bool


Pattern = Characters | Sequence | Alternatives | Repeat | Assertion | LookAhead


def holds_start(tree: Pattern) -> bool:
    """Tell whether `^` stands in a part."""
    if isinstance(tree, Assertion):
        return tree.kind == "^"
    if isinstance(tree, Sequence | Alternatives):
        return any(holds_start(part) for part in tree.parts)
    return isinstance(tree, Repeat | LookAhead) and holds_start(tree.part)
