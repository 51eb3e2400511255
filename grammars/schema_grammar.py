"""From a schema's normal form to what may be said, as an expression for the automaton."""

import itertools
from collections.abc import Iterable
from typing import Any

from falsework.grammars import json_values
from falsework.grammars.char_dfa import ANY_TEXT, CharDFA, TooManyCharacterStates, texts
from falsework.grammars.expressions import NFA, Expression, choice, literal
from falsework.grammars.json_values import Notation, NotRepresentable, Property
from falsework.grammars.numbers import Numbers, NumberTooComplex, number_grammar
from falsework.grammars.pattern_dfa import pattern_dfa
from falsework.grammars.schema_algebra import Algebra
from falsework.grammars.schema_terms import (
    ANYTHING,
    EVERYTHING,
    Arrays,
    Booleans,
    Check,
    Constants,
    Node,
    Null,
    Objects,
    Term,
    together,
)
from falsework.grammars.strings import Strings, string_grammar, text_grammar

COUNTED_LIMIT = 64
"""Up to which number of members minProperties and maxProperties are counted."""
UNIQUE_LIMIT = 8
"""Up to how many possible items uniqueItems is said: each doubles the states."""
CONTAINS_LIMIT = 400
"""How many places contains may count: items times found ones."""
FREE_NODES = 3_600
"""About how many nodes a value without a schema has."""
OTHERS_DEPTH = 1
"""How deep the values of members nest that an object with named members allows without a word."""


class RecursiveSchema(ValueError):
    """A schema whose values nest without limit."""


class TooDeep(ValueError):
    """A schema whose values nest deeper than the limit."""


class GrammarBuilder:
    """Builds the expression of each node once; `checks` collects what no expression enforces."""

    def __init__(
        self, algebra: Algebra, notation: Notation, depth_limit: int, *, closed: bool = False
    ) -> None:
        """With `closed`, objects that name members and say nothing of others have no others."""
        self._algebra = algebra
        self._notation = notation
        self._depth_limit = depth_limit
        self._closed = closed
        self._kept: dict[Node, Expression | None] = {}
        self._sizes: dict[Node, int] = {}
        self.size = 0
        """About how many nodes the expressions have that were asked for, each use counted."""
        self._open: list[Node] = []
        self.checks: dict[Check, None] = {}

    def node(self, node: Node) -> Expression | None:
        """Return what says the values of a node; None: there are none."""
        if node == ANYTHING:
            self.size += FREE_NODES
            return json_values.any_value(self._notation)
        if node in self._kept:
            self.size += self._sizes[node]
            return self._kept[node]
        if node in self._open:
            raise RecursiveSchema
        if len(self._open) > self._depth_limit:
            raise TooDeep
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
        return self._constants(value)

    def _constants(self, constants: Constants) -> Expression | None:
        values = [self._algebra.constant(text) for text in sorted(constants.texts)]
        return self._listed(values)

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
        if not settled.rules and not settled.excluded:
            return json_values.string(self._notation, settled.low, settled.high)
        budget = self._algebra.budget
        try:
            return string_grammar(settled, budget)
        except TooManyCharacterStates:
            self.checks["maxLength" if settled.high is not None else "minLength", ""] = None
        try:
            return text_grammar(settled.dfa(budget, lengths=False))
        except TooManyCharacterStates:
            self.checks.update(dict.fromkeys((rule.keyword, "") for rule in settled.rules))
            return json_values.string(self._notation, settled.low, settled.high)

    def _numbers(self, numbers: Numbers) -> Expression | None:
        settled = numbers.simplified()
        if settled is None:
            return None
        try:
            return number_grammar(settled)
        except NumberTooComplex:
            self.checks["multipleOf", ""] = None
            return number_grammar(Numbers(settled.low, settled.high, kind=settled.kind))

    def objects(self, objects: Objects, *, bare: bool = False) -> Expression | None:
        """Return what says an object; `bare`: as keyword arguments."""
        named = list(dict.fromkeys(
            itertools.chain(*(layer.names for layer in objects.layers), objects.required)
        ))  # fmt: skip
        members = []
        for name in named:
            value = self._member(objects, name)
            if value is not None:
                members.append(Property(name, value, name in objects.required))
                self.size += len(name) + 6
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
            and all(layer.rest == ANYTHING and not layer.patterns for layer in objects.layers)
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
        names = self._names(objects.keys)
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
            value = self._rest(self._other(objects, matched), named)
            if value is not None:
                found.append((text_grammar(dfa), value))
        return found

    def _rest(self, node: Node, named: list[str]) -> Expression | None:
        """Return what other members may be; beside named ones, values without a schema are flat."""
        if named and node == ANYTHING:
            return json_values.any_value(self._notation, OTHERS_DEPTH)
        return self.node(node)

    def _other(self, objects: Objects, matched: frozenset[str]) -> Node:
        """Return what holds for members whose names match some patterns."""
        return together(*(
            node
            for layer in objects.layers
            for node in [n for p, n in layer.patterns if p in matched] or [layer.rest]
        ))  # fmt: skip

    def _names(self, keys: Node) -> CharDFA | None:
        """Return the automaton of the names that members may have; None: of none."""
        if keys == ANYTHING:
            return ANY_TEXT
        found: CharDFA | None = None
        for term in self._algebra.terms(keys):
            if isinstance(term.value, Strings):
                self.checks.update(dict.fromkeys(sorted(term.checks)))
                made = term.value.dfa(self._algebra.budget)
                found = made if found is None else found.union(made, self._algebra.budget)
        return None if found is None or found.empty else found

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
        values = self._algebra.listed(arrays.item(0), UNIQUE_LIMIT)
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


def items_grammar(
    prefix: list[Expression | None], rest: Expression | None, low: int, high: int | None
) -> Expression | None:
    """Say an array: the first items each as its own, then any number of others."""
    first = next((n for n, one in enumerate(prefix) if one is None), None)
    if first is not None:
        prefix, rest = prefix[:first], None
    if rest is None:
        high = len(prefix) if high is None else min(high, len(prefix))
    if high is not None and low > high:
        return None
    prefix = prefix if high is None else prefix[:high]

    def add(net: NFA, start: int) -> int:
        end = net.add_node()
        node = net.literal(start, b"[")
        for count in range(max(len(prefix), low, high or 0) + 1):
            if count >= low:
                net.jumps.append((node, end))
            if count == high:
                break
            item = prefix[count] if count < len(prefix) else rest
            assert item is not None
            if high is None and count >= max(len(prefix), low):
                _add_endless(net, node, item, end, first=count == 0)
                break
            entry = net.literal(node, b", " if count else b"")
            if not count:
                entry = net.add_node()
                net.jumps.append((node, entry))
            node = item(net, entry)
        return net.literal(end, b"]")

    return add


def _add_endless(net: NFA, node: int, item: Expression, end: int, *, first: bool) -> None:
    entry = net.add_node()
    net.jumps.append((node if first else net.literal(node, b", "), entry))
    behind = item(net, entry)
    net.jumps.append((behind, end))
    net.jumps.append((net.literal(behind, b", "), entry))


def subsets_grammar(values: list[Expression], low: int, high: int | None) -> Expression | None:
    """Say an array of some of the values, in any order, each at most once."""
    most = len(values) if high is None else min(high, len(values))
    if low > most:
        return None

    def add(net: NFA, start: int) -> int:
        end = net.add_node()
        nodes = {0: net.literal(start, b"[")}
        for used in range(1 << len(values)):
            count = used.bit_count()
            if used not in nodes or count > most:
                continue
            if count >= low:
                net.jumps.append((nodes[used], end))
            if count == most:
                continue
            entry = net.literal(nodes[used], b", ") if used else nodes[used]
            for number, value in enumerate(values):
                following = used | 1 << number
                if following != used:
                    target = nodes.setdefault(following, -1)
                    if target < 0:
                        target = nodes[following] = net.add_node()
                    net.jumps.append((value(net, entry), target))
        return net.literal(end, b"]")

    return add


def containing_grammar(
    positions: list[tuple[Expression | None, Expression | None]],
    low: int,
    high: int | None,
    least: int,
    most: int | None,
) -> Expression:
    """Say an array with `least` to `most` items of one kind: (that kind, other) by position.

    The last position stands for all further ones.
    """
    last = len(positions) - 1
    counted = least if most is None else most

    def add(net: NFA, start: int) -> int:
        end = net.add_node()
        nodes = {(0, 0): net.literal(start, b"[")}
        opened = net.add_node()
        net.jumps.append((nodes[0, 0], opened))
        queue = [(0, 0)]
        for place in queue:
            count, found = place
            if count >= low and found >= least:
                net.jumps.append((nodes[place], end))
            if high is not None and count >= high:
                continue
            following = min(count + 1, last) if high is None else count + 1
            entry = net.literal(nodes[place], b", ") if place != (0, 0) else opened
            for kind, item in enumerate(positions[min(count, last)]):
                counts = found if kind else found + 1
                if item is None or (most is not None and counts > most):
                    continue
                target = (following, min(counts, counted))
                if target not in nodes:
                    nodes[target] = net.add_node()
                    queue.append(target)
                begun = net.add_node()
                net.jumps.append((entry, begun))
                net.jumps.append((item(net, begun), nodes[target]))
        return net.literal(end, b"]")

    return add
