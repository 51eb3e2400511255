"""From a schema's normal form to what may be said, as an expression for the automaton."""

import itertools

from falsework.grammars import json_values
from falsework.grammars.array_grammar import containing_grammar, items_grammar, subsets_grammar
from falsework.grammars.char_dfa import CharDFA, texts
from falsework.grammars.expressions import LARGEST_COUNT, Expression, choice, literal
from falsework.grammars.json_values import Notation, Property
from falsework.grammars.numbers import Numbers
from falsework.grammars.pattern_dfa import pattern_dfa
from falsework.grammars.scalar_grammar import ScalarGrammar
from falsework.grammars.schema_algebra import Algebra
from falsework.grammars.schema_terms import (
    ANYTHING,
    EVERYTHING,
    Arrays,
    Booleans,
    Node,
    Null,
    Objects,
    Term,
    together,
)
from falsework.grammars.schema_values import listed_values, names_dfa
from falsework.grammars.spelled_text import text_grammar
from falsework.grammars.strings import Strings

COUNTED_LIMIT = 64
"""Up to which number of members minProperties and maxProperties are counted."""


UNIQUE_LIMIT = 8
"""Up to how many possible items uniqueItems is said: each doubles the states."""


CONTAINS_LIMIT = 400
"""How many places contains may count: items times found ones."""


NAMES_LIMIT = 20_000
"""How many characters the names of an object's members may have, all together."""
FREE_NODES = 2_900
"""About how many nodes a value without a schema has."""


OTHERS_DEPTH = 1
"""How deep the values of members nest that an object with named members allows without a word."""


FLAT_NODES = 300
"""About how many nodes a value without a schema has that nests to OTHERS_DEPTH."""


class BeyondAutomaton(ValueError):
    """A schema whose values nest without limit or too deep, or whose names are too long."""


class AutomatonTooLarge(BeyondAutomaton):
    """A schema whose expression has more nodes than `GrammarBuilder.limit`."""


class GrammarBuilder(ScalarGrammar):
    """Builds the expression of each node once; `checks` collects what no expression enforces."""

    def __init__(
        self, algebra: Algebra, notation: Notation, depth_limit: int, *, closed: bool = False
    ) -> None:
        """With `closed`, objects that name members and say nothing of others have no others."""
        super().__init__(algebra, notation)
        self._depth_limit = depth_limit
        self._closed = closed
        self._kept: dict[Node, Expression | None] = {}
        self._sizes: dict[Node, int] = {}
        self.limit = LARGEST_COUNT
        """How many nodes they may have."""
        self._open: list[Node] = []

    def node(self, node: Node) -> Expression | None:
        """Return what says the values of a node; None: there are none."""
        if node == ANYTHING:
            self.size += FREE_NODES
            return json_values.any_value(self._notation)
        if node in self._kept:
            self.size += self._sizes[node]
            return self._kept[node]
        if node in self._open:
            raise BeyondAutomaton
        if len(self._open) > self._depth_limit:
            raise BeyondAutomaton
        self._open.append(node)
        before = self.size
        try:
            made = self._union(node)
        finally:
            self._open.pop()
        self._kept[node] = made
        self._sizes[node] = self.size - before
        return made

    def _union(self, node: Node) -> Expression | None:
        terms = self._algebra.terms(node)
        if terms is EVERYTHING:
            return json_values.any_value(self._notation)
        parts = []
        for term in terms:
            self._algebra.budget.spend()
            part = self.term(term)
            self.size += 8
            if self.size > self.limit:
                raise AutomatonTooLarge
            if part is not None:
                self.checks.update(dict.fromkeys(sorted(term.checks)))
                parts.append(part)
        if len(parts) == 1:
            return parts[0]
        return choice(parts) if parts else None

    def term(self, term: Term, *, bare: bool = False) -> Expression | None:  # noqa: PLR0911 - one for each type
        """Return what says the values of a term; None: there are none."""
        value = term.value
        if isinstance(value, Objects):
            return self.objects(value, bare=bare)
        if isinstance(value, Arrays):
            return self._arrays(value)
        if isinstance(value, Strings):
            return self._strings(value)
        if isinstance(value, Numbers):
            return self._numbers(value)
        if isinstance(value, Null):
            return literal(self._notation.null)
        if isinstance(value, Booleans):
            words = {True: self._notation.true, False: self._notation.false}
            return choice([literal(words[one]) for one in sorted(value.values, reverse=True)])
        return self._listed(self._algebra.constant(text) for text in sorted(value.texts))

    def objects(self, objects: Objects, *, bare: bool = False) -> Expression | None:
        """Return what says an object; `bare`: as keyword arguments."""
        named = list(
            dict.fromkeys(
                itertools.chain(*(layer.names for layer in objects.layers), objects.required)
            )
        )
        if sum(map(len, named)) > NAMES_LIMIT:
            raise BeyondAutomaton
        members = []
        for name in named:
            value = self._member(objects, name)
            if value is not None:
                members.append(Property(name, value, name in objects.required))
                self.size += 3 * len(name) + 6  # its label, and what keys of others aren't
            elif name in objects.required:
                return None
        others = [] if bare or self._is_closed(objects) else self._others(objects, named)
        low, high = self._counts(objects, members, bool(others))
        if low > len(members) and not others:
            return None
        return json_values.object_grammar(members, others, low, high, bare=bare)

    def _is_closed(self, objects: Objects) -> bool:
        return (
            self._closed
            and any(layer.names for layer in objects.layers)
            and not any(layer.others or layer.patterns for layer in objects.layers)
        )

    def _member(self, objects: Objects, name: str) -> Expression | None:
        if not self._algebra.has_key(objects, name):
            return None
        try:
            name.encode()
        except UnicodeEncodeError:
            return None
        return self.node(self._algebra.member(objects, name))

    def _counts(
        self, objects: Objects, members: list[Property], others: bool
    ) -> tuple[int, int | None]:
        """Return the bounds that have to be counted; note what is left to a check."""
        low, high = objects.low, objects.high
        required = sum(member.required for member in members)
        if low <= required:
            low = 0
        if high is not None and not others and high >= len(members):
            high = None
        if low > COUNTED_LIMIT:
            self.checks[objects.low_check] = None
            low = 0
        elif others and low > required + 1:
            # The same name twice is one member.
            self.checks[objects.low_check] = None
        if high is not None and high > COUNTED_LIMIT:
            self.checks[objects.high_check] = None
            high = None
        return low, high

    def _others(self, objects: Objects, named: list[str]) -> list[tuple[Expression, Expression]]:
        """Return what members of other names may be: (key, value) for each kind of names."""
        algebra = self._algebra
        patterns = dict.fromkeys(p for layer in objects.layers for p, _ in layer.patterns)
        if not patterns and objects.keys == ANYTHING:
            rest = self._rest(together(*(layer.rest for layer in objects.layers)), named)
            return [(json_values.other_keys(named, self._notation), rest)] if rest else []
        names, checks = names_dfa(algebra, objects.keys)
        self.checks.update(dict.fromkeys(checks))
        if named and names is not None:
            names = names.intersection(texts(sorted(named)).complement(), algebra.budget)
        kinds: list[tuple[CharDFA, frozenset[str]]] = [(names, frozenset())] if names else []
        for pattern in patterns:
            inside = pattern_dfa(pattern, algebra.budget)
            outside = pattern_dfa(pattern, algebra.budget, upper=True).complement()
            kinds = [
                (both, had | added)
                for dfa, had in kinds
                for side, added in ((inside, frozenset({pattern})), (outside, frozenset[str]()))
                if not (both := dfa.intersection(side, algebra.budget)).empty
            ]
        found = []
        for dfa, matched in kinds:
            value = self._rest(objects.other(matched), named)
            if value is not None:
                found.append((text_grammar(dfa), value))
        return found

    def _rest(self, node: Node, named: list[str]) -> Expression | None:
        """Return what other members may be; beside named ones, values without a schema are flat."""
        if named and node == ANYTHING:
            self.size += FLAT_NODES
            return json_values.any_value(self._notation, OTHERS_DEPTH)
        return self.node(node)

    def _arrays(self, arrays: Arrays) -> Expression | None:
        if arrays.unique and (arrays.high is None or arrays.high > 1):
            made = self._unique(arrays)
            if made is not None:
                return made
            self.checks.update(dict.fromkeys(sorted(arrays.unique)))
        if arrays.contains:
            return self._containing(arrays)
        prefix = [self.node(arrays.item(index)) for index in range(arrays.prefix_length)]
        before = self.size
        rest = self.node(arrays.item(len(prefix)))
        rounds = max(arrays.low, arrays.high or 0) - len(prefix) - 1
        self.size += max(0, rounds) * (self.size - before)
        return items_grammar(prefix, rest, arrays.low, arrays.high)

    def _unique(self, arrays: Arrays) -> Expression | None:
        """Return what says arrays of different items, where there are few possible ones."""
        if arrays.prefix_length or arrays.contains:
            return None
        values = listed_values(self._algebra, arrays.item(0), UNIQUE_LIMIT)
        if values is None:
            return None
        return subsets_grammar(
            [json_values.constant(one, self._notation) for one in values], arrays.low, arrays.high
        )

    def _containing(self, arrays: Arrays) -> Expression | None:
        contains = arrays.contains[0]
        most = max(1, arrays.prefix_length, arrays.low, arrays.high or 0)
        counted = max(contains.low, (contains.high or 0) + 1 if contains.high is not None else 0)
        if len(arrays.contains) > 1 or (most + 1) * (counted + 1) > CONTAINS_LIMIT:
            self.checks.update(dict.fromkeys(one.check for one in arrays.contains))
            return self._arrays(Arrays(arrays.items, arrays.low, arrays.high))
        positions = []
        for index in range(most + 1):
            item = arrays.item(index)
            other = together(item, contains.other) if contains.high is not None else item
            positions.append((self.node(together(item, contains.item)), self.node(other)))
        return containing_grammar(positions, arrays.low, arrays.high, contains.low, contains.high)
