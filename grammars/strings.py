"""Sets of strings: lengths, patterns, formats and listed values, and how they are spelled."""

from dataclasses import dataclass, replace

from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import ANY_TEXT, CharDFA, TooManyCharacterStates, texts
from falsework.grammars.expressions import (
    LARGEST_COUNT,
    NFA,
    Expression,
    GrammarTooLarge,
)
from falsework.grammars.format_tables import format_dfa, loose_format_dfa
from falsework.grammars.pattern_dfa import pattern_dfa
from falsework.grammars.spelled_text import SpelledText, text_grammar


@dataclass(frozen=True)
class Rule:
    """A pattern or a format that strings have (`holds`) or haven't.

    `loose`: in the widest reading of any validator, otherwise only what every validator reads so.
    """

    keyword: str
    text: str
    holds: bool = True
    loose: bool = False

    def dfa(self, budget: Budget) -> CharDFA:
        """Return the automaton of the strings that keep the rule."""
        upper = self.holds == self.loose
        if self.keyword == "format":
            made = loose_format_dfa(self.text) if upper else format_dfa(self.text)
        else:
            made = pattern_dfa(self.text, budget, upper=upper)
        return made if self.holds else made.complement()


@dataclass(frozen=True)
class Strings:
    """Strings of `low` to `high` characters that keep the rules; or only `values`."""

    low: int = 0
    high: int | None = None
    rules: frozenset[Rule] = frozenset()
    values: frozenset[str] | None = None
    excluded: frozenset[str] = frozenset()

    def intersection(self, other: "Strings") -> "Strings | None":
        """Return what both sets have; None: it is known to be nothing."""
        values = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            values = self.values & other.values
        highs = [one for one in (self.high, other.high) if one is not None]
        both = Strings(
            max(self.low, other.low),
            min(highs, default=None),
            self.rules | other.rules,
            values,
            self.excluded | other.excluded,
        )
        if both.high is not None and both.low > both.high:
            return None
        return both

    def loosened(self) -> "Strings":
        """Return the set in the widest reading of its rules."""
        return replace(self, rules=frozenset(replace(rule, loose=True) for rule in self.rules))

    def settled(self, budget: Budget) -> "Strings | None":
        """Return the set with its listed values judged; None: it is empty."""
        if self.values is None:
            if any(replace(rule, holds=not rule.holds) in self.rules for rule in self.rules):
                return None
            return None if self.rules and self._no_texts(budget) else self
        dfas = [rule.dfa(budget) for rule in self.rules]
        left = frozenset(
            one
            for one in self.values
            if one not in self.excluded
            and self.low <= len(one)
            and (self.high is None or len(one) <= self.high)
            and all(dfa.accepts(one) for dfa in dfas)
        )
        return Strings(values=left) if left else None

    def _no_texts(self, budget: Budget) -> bool:
        try:
            return self.dfa(budget, lengths=False).empty
        except TooManyCharacterStates:
            return False  # not found out

    def dfa(self, budget: Budget, *, lengths: bool = True) -> CharDFA:
        """Return the automaton of the set."""
        made = ANY_TEXT if self.values is None else texts(sorted(self.values))
        for rule in sorted(self.rules, key=repr):
            made = (
                rule.dfa(budget)
                if made is ANY_TEXT
                else made.intersection(rule.dfa(budget), budget)
            )
        if self.excluded:
            made = made.intersection(texts(sorted(self.excluded)).complement(), budget)
        longest = made.longest() if lengths and self.high is not None else None
        if lengths and (
            self.low
            or (self.high is not None and longest is None)
            or (longest is not None and longest > (self.high or 0))
        ):
            made = made.with_lengths(self.low, self.high, budget)
        return made


def string_grammar(strings: Strings, budget: Budget) -> Expression | None:
    """Say the strings of a set with rules, quoted; None: there are none.

    Lengths are counted where the automaton can; otherwise they are written out.
    """
    if strings not in _KEPT:
        made = _string_grammar(strings, budget)
        if len(_KEPT) >= _MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)), None)
        _KEPT[strings] = made
    return _KEPT[strings]


_KEPT: dict[Strings, Expression | None] = {}
_MOST_KEPT = 128


def _string_grammar(strings: Strings, budget: Budget) -> Expression | None:
    free = strings.dfa(budget, lengths=False)
    longest = free.longest()
    high = min((n for n in (longest, strings.high) if n is not None), default=None)
    most = LARGEST_COUNT if high is None else min(high, LARGEST_COUNT)
    bounded = strings.low > 0 or (strings.high is not None and high != longest)
    counts = free.highest_counts(strings.low, most) if bounded else None
    if free.empty:
        return None
    if not bounded:
        return text_grammar(free)
    if counts is None:
        written_out = strings.dfa(budget)
        return None if written_out.empty else text_grammar(written_out)
    if counts[0] < 0:
        return None
    counted = SpelledText(free, strings.low, counts)

    def add(net: NFA, start: int) -> int:
        return (counted if net.counting else _written_out(strings))(net, start)

    return add


def _written_out(strings: Strings) -> Expression:
    try:
        return text_grammar(strings.dfa(Budget()))
    except TooManyCharacterStates:
        msg = "a string's lengths take too many states"
        raise GrammarTooLarge(msg) from None
