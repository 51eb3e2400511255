"""What says numbers, strings and listed values, as expressions for the automaton."""

from collections.abc import Iterable
from typing import Any

from falsework.grammars import json_values
from falsework.grammars.char_dfa import TooManyCharacterStates
from falsework.grammars.expressions import Expression, choice
from falsework.grammars.json_values import Notation, NotRepresentable
from falsework.grammars.number_grammar import NumberTooComplex, number_grammar
from falsework.grammars.numbers import Numbers
from falsework.grammars.schema_algebra import Algebra
from falsework.grammars.schema_terms import Check
from falsework.grammars.spelled_text import SpelledText, text_grammar
from falsework.grammars.strings import Strings, string_grammar

SIMPLE_NODES = 60
"""About how many nodes a number has; a string without rules has fewer."""


class ScalarGrammar:
    """Builds the expressions of values without parts.

    `checks` collects what no expression enforces; `size` is about how many nodes the expressions
    have that were asked for, each use counted.
    """

    def __init__(self, algebra: Algebra, notation: Notation) -> None:
        self._algebra = algebra
        self._notation = notation
        self.size = 0
        self.checks: dict[Check, None] = {}

    def _listed(self, values: Iterable[Any]) -> Expression | None:
        parts = []
        for value in values:
            try:
                parts.append(json_values.constant(value, self._notation))
                self.size += len(str(value)) + 2
            except NotRepresentable:
                continue  # with a lone surrogate, which no text can hold
        return choice(parts) if parts else None

    def _strings(self, strings: Strings) -> Expression | None:
        settled = strings.settled(self._algebra.budget)
        if settled is None:
            return None
        if settled.values is not None:
            return self._listed(sorted(settled.values))
        self.size += SIMPLE_NODES
        if not settled.rules and not settled.excluded:
            return json_values.string(self._notation, settled.low, settled.high)
        budget = self._algebra.budget
        try:
            made = string_grammar(settled, budget)
        except TooManyCharacterStates:
            self.checks["maxLength" if settled.high is not None else "minLength", ""] = None
        else:
            self.size += made.nodes if isinstance(made, SpelledText) else 0
            return made
        try:
            return text_grammar(settled.dfa(budget, lengths=False))
        except TooManyCharacterStates:
            self.checks.update(dict.fromkeys((rule.keyword, "") for rule in settled.rules))
            return json_values.string(self._notation, settled.low, settled.high)

    def _numbers(self, numbers: Numbers) -> Expression | None:
        settled = numbers.simplified()
        if settled is None:
            return None
        self.size += SIMPLE_NODES
        try:
            return number_grammar(settled)
        except NumberTooComplex:
            self.checks["multipleOf", ""] = None
            return number_grammar(Numbers(settled.low, settled.high, kind=settled.kind))
