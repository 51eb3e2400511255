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
from falsework.grammars.schema_algebra import EXCLUSION_STEPS, Algebra
from falsework.grammars.schema_documents import Document, open_document
from falsework.grammars.schema_errors import SchemaTooHard, UnsupportedSchema
from falsework.grammars.schema_export import SchemaExport
from falsework.grammars.schema_grammar import BeyondAutomaton, GrammarBuilder
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

NODES_LIMIT = 150_000
"""A schema whose expression has more nodes is planned again, with exclusions left to checks."""


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
    limits: Limits = DEFAULT_LIMITS,
) -> SchemaPlan:
    """Return how `schema` is served; raise UnsupportedSchema when it can't be served at all.

    `arguments`: the schema is the parameters of a tool: an object, and no members where it names
    none; with a notation of bare arguments, written as keyword arguments.
    """
    if arguments:
        schema = _parameters(schema)
    budget = Budget(limits.steps)
    try:
        document = open_document(schema, limits.depth, limits.bytes)
        for exclusions in (EXCLUSION_STEPS, 0):
            algebra = Algebra(document, budget, exclusions)
            made, size = _planned(document, algebra, notation, arguments=arguments, limits=limits)
            if made.expression is None or size <= NODES_LIMIT:
                return made
        exported = made.llguidance
        how: How = "checked" if exported.checks else "llguidance"
        return replace(made, how=how, expression=None, checks=exported.checks)
    except BudgetExceeded as fault:
        raise SchemaTooHard(str(fault), "") from None
    except RecursionError:
        msg = "its references nest too deep"
        raise SchemaTooHard(msg, "") from None


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


_SAYING_MORE = frozenset({
    "patternProperties", "additionalProperties", "$ref", "anyOf", "allOf", "oneOf",
    "required", "not", "if", "minProperties", "propertyNames", "dependentSchemas", "$dynamicRef",
    "$recursiveRef", "enum", "const", "unevaluatedProperties",
})  # fmt: skip
"""Keywords that make an object more than one without members."""


def _planned(
    document: Document,
    algebra: Algebra,
    notation: json_values.Notation,
    *,
    arguments: bool,
    limits: Limits,
) -> tuple[SchemaPlan, int]:
    root = algebra.node(document.root)
    if not algebra.terms(root):
        msg = "nothing satisfies it"
        raise UnsupportedSchema(msg, "")
    builder = GrammarBuilder(algebra, notation, limits.depth, closed=arguments)
    expression: Expression | None
    try:
        if arguments and notation.bare_arguments:
            expression = _bare(builder, algebra, root)
        else:
            expression = builder.node(root)
    except BeyondAutomaton:
        expression = None
    else:
        if expression is None:
            msg = "nothing satisfies it"
            raise UnsupportedSchema(msg, "")
    checks = tuple(builder.checks)
    export = functools.partial(_exported, algebra, root, limits, closed=arguments)
    satisfies = functools.partial(_satisfies, algebra, root, limits)
    given = document.schema if isinstance(document.schema, bool) else dict(document.schema)
    if expression is not None and not checks:
        made = SchemaPlan("automaton", given, document.draft, expression, (), export, satisfies)
        return made, builder.size
    exported = export()
    how: How = "checked" if exported.checks else "llguidance"
    if how == "llguidance":
        expression, checks = None, ()
    elif expression is None:
        checks = exported.checks
    made = SchemaPlan(how, given, document.draft, expression, checks, lambda: exported, satisfies)
    return made, builder.size


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
