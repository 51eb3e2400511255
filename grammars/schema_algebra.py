"""From subschemas to their normal form: intersections, unions and differences of terms.

A keyword that no term says exactly is left out, and noted as a check of the terms that it was left
out of: what they say is then more than the schema admits, never less.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from falsework.grammars.budget import Budget
from falsework.grammars.numbers import Numbers
from falsework.grammars.scalar_keywords import check, matches, may_match
from falsework.grammars.schema_documents import REF_ALONE, Document, Subschema
from falsework.grammars.schema_keywords import KEYWORDS, readings
from falsework.grammars.schema_negation import negated
from falsework.grammars.schema_terms import (
    ANYTHING,
    EVERYTHING,
    Arrays,
    Booleans,
    Check,
    Constants,
    Node,
    Objects,
    Term,
    Terms,
    met_arrays,
    met_objects,
    together,
    type_of,
)
from falsework.grammars.schema_values import is_value_of
from falsework.grammars.strings import Strings

TERM_LIMIT = 200
"""How many alternatives a schema may have before exclusions are left to a check."""
PRODUCT_LIMIT = 2_000
"""How many pairs of alternatives two keywords may have before the second is left to a check."""
EXCLUSION_STEPS = 4_000
"""How many pairs of alternatives are compared for exclusions (oneOf, not, if) in one schema."""


class _TooManyExclusions(ValueError):
    """Exclusions take more steps than allowed: they are left to a check."""


class Algebra:
    """The terms of one document's nodes, each computed once."""

    def __init__(
        self, document: Document, budget: Budget, exclusions: int = EXCLUSION_STEPS
    ) -> None:
        """Compare at most `exclusions` pairs of alternatives for oneOf, not and if."""
        self.document = document
        self.budget = budget
        self._terms: dict[Node, Terms] = {}
        self._literals: dict[tuple[Subschema, bool], Terms] = {}
        self._open: set[tuple[Subschema, bool]] = set()
        self._proving: set[Node] = set()
        self.constants: dict[str, Any] = {}
        self._exclusions_left = exclusions
        self._excluding = False

    def node(self, subschema: Subschema, holds: bool = True) -> Node:
        """Return the node of one schema, ANYTHING where it says nothing."""
        subschema = self._target(subschema)
        if subschema.schema is holds or (holds and subschema.schema == {}):
            return ANYTHING
        return ((subschema, holds),)

    def _target(self, subschema: Subschema) -> Subschema:
        """Follow references that nothing else stands beside, so that equal nodes are the same."""
        seen = set()
        while isinstance(subschema.schema, Mapping) and isinstance(subschema.get("$ref"), str):
            alone = subschema.draft in REF_ALONE or KEYWORDS & subschema.schema.keys() == {"$ref"}
            if not alone or subschema in seen:
                break
            seen.add(subschema)
            subschema = self.document.followed(subschema, "$ref")
        return subschema

    def loosened(self, terms: Terms) -> Terms:
        """Return the terms with strings in the widest reading of their patterns and formats."""
        return tuple(
            Term(term.value.loosened(), term.checks) if isinstance(term.value, Strings) else term
            for term in terms
        )

    def nothing(self, of: Subschema) -> Node:
        """Return a node that admits nothing."""
        return ((self.document.made(False, of, of.pointer), True),)

    def terms(self, node: Node) -> Terms:
        """Return the alternatives of a node; none: nothing satisfies it."""
        known = self._terms.get(node)
        if known is None:
            known = EVERYTHING
            for subschema, holds in node:
                known = self.met(known, self.literal(subschema, holds))
            self._terms[node] = known
        return known

    def is_empty(self, node: Node) -> bool:
        """Tell whether it is known that nothing satisfies a node."""
        if node == ANYTHING:
            return False
        if node in self._terms:
            return not self._terms[node]
        if node in self._proving or any(one in self._open for one in node):
            return False
        self._proving.add(node)
        try:
            return not self.terms(node)
        finally:
            self._proving.discard(node)

    def constant(self, text: str) -> Any:
        """Return the listed array or object of a text, its members in the order as listed."""
        return self.constants.get(text, json.loads(text))

    def literal(self, subschema: Subschema, holds: bool) -> Terms:
        """Return the terms of one schema, or of its opposite."""
        one = (subschema, holds)
        known = self._literals.get(one)
        if known is not None:
            return known
        self.budget.spend()
        if one in self._open:
            msg = "a schema that stands for itself ($ref in a circle) means nothing"
            raise subschema.error(msg, "$ref")
        self._open.add(one)
        try:
            if isinstance(subschema.schema, bool):
                known = EVERYTHING if subschema.schema is holds else ()
            elif holds:
                known = self._positive(subschema)
            else:
                known = negated(self, subschema)
        finally:
            self._open.discard(one)
        self._literals[one] = known
        return known

    def _positive(self, subschema: Subschema) -> Terms:
        if subschema.draft in REF_ALONE and isinstance(subschema.get("$ref"), str):
            return self.literal(self.document.followed(subschema, "$ref"), True)
        terms = EVERYTHING
        for keyword, reading in readings(subschema):
            terms = self.narrowed(terms, reading(self, subschema), check(subschema, keyword))
            if not terms:
                break
        return terms

    def met(self, one: Terms, other: Terms) -> Terms:
        """Return the terms of what is in both."""
        if one is EVERYTHING or other is EVERYTHING:
            return other if one is EVERYTHING else one
        found: dict[Term, None] = {}
        for first in one:
            for second in other:
                self._spend()
                both = self._met(first, second)
                if both is not None:
                    found[both] = None
        return tuple(found)

    def narrowed(self, terms: Terms, further: Terms, left: Check) -> Terms:
        """Return the terms of what is in both; where they multiply, `left` is left to a check."""
        if len(terms) * len(further) > PRODUCT_LIMIT and min(len(terms), len(further)) > 1:
            return tuple(term.checked([left]) for term in terms)
        return self.met(terms, further)

    def _met(self, one: Term, other: Term) -> Term | None:
        if type_of(one.value) != type_of(other.value):
            return None
        checks = one.checks | other.checks
        value = self._met_values(one.value, other.value)
        return None if value is None else Term(value, checks)

    def _met_values(self, one: Any, other: Any) -> Any:
        if isinstance(one, Constants) or isinstance(other, Constants):
            return self._met_constants(one, other)
        value: Any = one
        if isinstance(one, Booleans):
            both = one.values & other.values
            value = Booleans(both) if both else None
        elif isinstance(one, Numbers):
            value = one.intersection(other)
        elif isinstance(one, Strings):
            value = one.intersection(other)
            value = value and value.settled(self.budget)
        elif isinstance(one, Arrays):
            value = met_arrays(one, other)
            value = value and self.bounded_arrays(value)
        elif isinstance(one, Objects):
            value = met_objects(one, other)
            if value and any(self.is_empty(self.member(value, name)) for name in value.required):
                value = None
        return value

    def bounded_arrays(self, arrays: Arrays) -> Arrays | None:
        """Return the arrays with no more items than can be; None: too few can be."""
        for index in range(arrays.prefix_length + 1):
            if arrays.high is not None and index >= arrays.high:
                break
            if self.is_empty(arrays.item(index)):
                return replace(arrays, high=index) if arrays.low <= index else None
        return arrays

    def _met_constants(self, one: Any, other: Any) -> Constants | None:
        constants, limits = (one, other) if isinstance(one, Constants) else (other, one)
        if isinstance(limits, Constants):
            texts = constants.texts & limits.texts
        else:
            texts = frozenset(t for t in constants.texts if self.has(Term(limits), json.loads(t)))
        return Constants(constants.typename, texts) if texts else None

    def member(self, objects: Objects, name: str) -> Node:
        """Return what holds for the member of a name (not what holds for the name)."""
        nodes = []
        for layer in objects.layers:
            matching = [
                (pattern, node)
                for pattern, node in layer.patterns
                if may_match(pattern, name, self.budget)
            ]
            named = name in layer.names
            nodes += [layer.names[name]] if named else []
            nodes += [node for _, node in matching]
            if not named and not any(matches(p, name, self.budget) for p, _ in matching):
                nodes.append(layer.rest)  # no reading is certain that a pattern matches
        return together(*nodes)

    def has_key(self, objects: Objects, name: str) -> bool:
        """Tell whether members may have a name."""
        return objects.keys == ANYTHING or self.satisfies(objects.keys, name)

    def satisfies(self, node: Node, value: Any) -> bool:
        """Tell whether a JSON value is one of a node's (checks left out)."""
        return any(self.has(term, value) for term in self.terms(node))

    def has(self, term: Term, value: Any) -> bool:
        """Tell whether a JSON value is one of a term's."""
        return is_value_of(self, term.value, value)

    def union(self, parts: Iterable[Terms]) -> Terms:
        """Return the terms of what is in any of the parts."""
        found: dict[Term, None] = {}
        for part in parts:
            if part is EVERYTHING:
                return EVERYTHING
            self.budget.spend(len(part))
            found.update(dict.fromkeys(part))
        return tuple(found)

    def excluding(self, terms: Terms, excluded: Iterable[Subschema], left: Check) -> Terms:
        """Return the terms less what satisfies any of the schemas; noted where it isn't exact."""
        for one in excluded:
            try:
                terms = self._less(terms, one, left)
            except _TooManyExclusions:
                terms = tuple(term.checked([left]) for term in terms)
        return terms

    def _less(self, terms: Terms, one: Subschema, left: Check) -> Terms:
        nested, self._excluding = self._excluding, True
        try:
            opposite = self.literal(one, False)
            if len(terms) * len(opposite) > TERM_LIMIT:
                raise _TooManyExclusions
            return self.met(
                terms,
                tuple(
                    Term(term.value, frozenset({left}) if term.checks else term.checks)
                    for term in opposite
                ),
            )
        finally:
            self._excluding = nested

    def _spend(self) -> None:
        self.budget.spend(4)
        if self._excluding:
            self._exclusions_left -= 1
            if self._exclusions_left < 0:
                raise _TooManyExclusions
