"""How a JSON Schema is served: by the automaton, by llguidance, or checked on the whole call.

`plan` is the one entry: it reads a schema in the meaning of its draft and returns what may be said
(an expression), what is left to check, and the schema for back ends that read JSON Schema.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from falsework.grammars import json_values
from falsework.grammars.budget import DEFAULT_STEPS, Budget, BudgetExceeded
from falsework.grammars.expressions import Expression
from falsework.grammars.schema_algebra import Algebra
from falsework.grammars.schema_documents import Document, open_document
from falsework.grammars.schema_errors import SchemaTooHard, UnsupportedSchema
from falsework.grammars.schema_export import SchemaExport
from falsework.grammars.schema_grammar import (
    AutomatonTooLarge,
    BeyondAutomaton,
    GrammarBuilder,
)
from falsework.grammars.schema_terms import Check, Node, Objects

How = Literal["automaton", "llguidance", "checked"]


@dataclass(frozen=True)
class Limits:
    """What one schema may cost before it is refused (UnsupportedSchema names the limit)."""

    bytes: int = 512 * 1024
    depth: int = 64
    states: int = 50_000
    steps: int = DEFAULT_STEPS


DEFAULT_LIMITS = Limits()

PREFERRED_NODES = 16_000
"""A schema whose expression has more nodes is llguidance's, where that enforces all of it."""
NODES_LIMIT = 100_000
"""A schema whose expression has more nodes is planned again, with exclusions left to checks."""


NOTHING = "nothing satisfies it"


@dataclass(frozen=True)
class LLGuidanceSchema:
    """A schema of keywords that llguidance enforces; `checks` are those that it doesn't."""

    schema: dict[str, Any] | bool
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class SchemaPlan:
    """How a schema is served.

    `how`: "automaton": `expression` says exactly the valid values; "llguidance": exact, but not by
    the automaton (`expression` is None); "checked": `checks` name the keywords that decoding
    leaves to a validator (where `expression` is None, llguidance decodes). `expression`, where
    there is one, never leaves out more than spelling and order, and is as tight as can be.
    `schema`: what a validator is given: the schema, OpenAPI's spellings in JSON Schema's.
    `draft`: the draft that it was written in. `llguidance` is of use, too, where the automaton of a
    whole reply gets too large.
    """

    how: How
    schema: dict[str, Any] | bool
    draft: str = "2020-12"
    expression: Expression | None = None
    checks: tuple[Check, ...] = ()
    exporting: Callable[[], LLGuidanceSchema] | None = field(default=None, repr=False)
    satisfies: Callable[[Any], bool] = field(default=lambda _: True, repr=False)
    """Whether a JSON value is one of those that may be said, whatever the back end."""

    @functools.cached_property
    def llguidance(self) -> LLGuidanceSchema:
        """The schema as llguidance enforces it; raise UnsupportedSchema where it is too large."""
        assert self.exporting is not None
        return self.exporting()


def plan(
    schema: Any,
    notation: json_values.Notation = json_values.JSON,
    *,
    arguments: bool = False,
    closed: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> SchemaPlan:
    """Return how `schema` is served; raise UnsupportedSchema when it can't be served at all.

    `closed`: objects that name members and say nothing of others have no others.

    `arguments`: the schema is the parameters of a tool: a closed object, no members where it names
    none; with a notation of bare arguments, written as keyword arguments.
    """
    if arguments:
        schema = _parameters(schema)
    budget = Budget(limits.steps)
    try:
        document = open_document(schema, limits.depth, limits.bytes)
        asked = _Asked(notation, limits, arguments=arguments, closed=closed or arguments)
        made = _planned(document, Algebra(document, budget), asked)
        if made is None:
            algebra = Algebra(document, budget, exclusions=0)
            made = _planned(document, algebra, asked, last=True)
    except BudgetExceeded as fault:
        raise SchemaTooHard(str(fault), "") from None
    except RecursionError:
        msg = "its references nest too deep"
        raise SchemaTooHard(msg, "") from None
    assert made is not None, "the last try is the plan"
    return made


def _parameters(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        msg = "a tool's parameters must be a schema of type object"
        raise UnsupportedSchema(msg, "")
    types = schema.get("type", "object")
    if types != "object" and not (isinstance(types, list) and "object" in types):
        msg = f"a tool's parameters must have type object, not {json.dumps(types)[:200]}"
        raise UnsupportedSchema(msg, "/type", "type")
    made = {**schema, "type": "object"}
    if not _SAYING_MORE & made.keys() and not made.get("properties"):
        made["additionalProperties"] = False
    return made


_SAYING_MORE = frozenset(
    {
        "patternProperties",
        "additionalProperties",
        "$ref",
        "anyOf",
        "allOf",
        "oneOf",
        "required",
        "not",
        "if",
        "minProperties",
        "propertyNames",
        "dependentSchemas",
        "$dynamicRef",
        "$recursiveRef",
        "enum",
        "const",
        "unevaluatedProperties",
    }
)
"""Keywords that make an object more than one without members."""


@dataclass(frozen=True)
class _Asked:
    """What `plan` was asked beside the schema."""

    notation: json_values.Notation
    limits: Limits
    arguments: bool
    closed: bool


def _planned(
    document: Document, algebra: Algebra, asked: _Asked, *, last: bool = False
) -> SchemaPlan | None:
    """Return how a schema is served; None, unless `last`, where its expression is too large."""
    notation, limits = asked.notation, asked.limits
    root = algebra.node(document.root)
    if not algebra.terms(root):
        raise UnsupportedSchema(NOTHING, "")
    builder = GrammarBuilder(algebra, notation, limits.depth, closed=asked.closed)
    bare = asked.arguments and notation.bare_arguments
    given = document.schema if isinstance(document.schema, bool) else dict(document.schema)
    export = functools.cache(
        functools.partial(_exported, algebra, root, limits, closed=asked.closed)
    )
    satisfies = functools.partial(_satisfies, algebra, root, limits)
    by_llguidance = SchemaPlan("llguidance", given, document.draft, None, (), export, satisfies)
    # llguidance has no spelling for all bare arguments.
    for limit in (NODES_LIMIT,) if bare else (PREFERRED_NODES, NODES_LIMIT):
        builder.limit = limit
        try:
            expression = _expression(builder, algebra, root, bare=bare)
            break
        except AutomatonTooLarge:
            if not export().checks:
                return by_llguidance
    else:
        if not last:
            return None
        expression = None
    if expression is not None and not builder.checks:
        return replace(by_llguidance, how="automaton", expression=expression)
    if not export().checks:
        return by_llguidance
    checks = export().checks if expression is None else tuple(builder.checks)
    return replace(by_llguidance, how="checked", expression=expression, checks=checks)


def _expression(
    builder: GrammarBuilder, algebra: Algebra, root: Node, *, bare: bool
) -> Expression | None:
    """Return the expression of a whole schema; None: the automaton can't say it."""
    try:
        made = _bare(builder, algebra, root) if bare else builder.node(root)
    except AutomatonTooLarge:
        raise
    except BeyondAutomaton:
        return None
    if made is None:
        raise UnsupportedSchema(NOTHING, "")
    return made


def _satisfies(algebra: Algebra, root: Node, limits: Limits, value: Any) -> bool:
    algebra.budget = Budget(limits.steps)
    return algebra.satisfies(root, value)


def _exported(algebra: Algebra, root: Node, limits: Limits, *, closed: bool) -> LLGuidanceSchema:
    algebra.budget = Budget(limits.steps)
    export = SchemaExport(algebra, closed=closed)
    try:
        written = export.document(root)
    except (BudgetExceeded, RecursionError):
        msg = "it takes too long to write for llguidance"
        raise SchemaTooHard(msg, "") from None
    return LLGuidanceSchema(written, tuple(export.checks))


def _bare(builder: GrammarBuilder, algebra: Algebra, root: Node) -> Expression | None:
    terms = algebra.terms(root)
    if len(terms) != 1 or not isinstance(terms[0].value, Objects):
        msg = "this model's calls have no spelling for alternatives at the top of the arguments"
        raise SchemaTooHard(msg, "")
    builder.checks.update(dict.fromkeys(terms[0].checks))
    try:
        return builder.term(terms[0], bare=True)
    except json_values.NotRepresentable as fault:
        raise SchemaTooHard(str(fault), "/properties", "properties") from None
