"""How a schema would be served, told for people and for CI."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from falsework.grammars import (
    DEFAULT_LIMITS,
    GrammarTooLarge,
    Limits,
    SchemaPlan,
    UnsupportedSchema,
    plan,
    strict_faults,
)
from falsework.grammars.admitted import admits
from falsework.grammars.dfa import DFA, EmptyLanguage, compile_dfa

HINTS = {
    "uniqueItems": "list the possible items with enum (up to 8), or leave it to the check",
    "pattern": "write it without backreferences and look-behind",
    "patternProperties": "write the patterns without backreferences and look-behind",
    "not": "name what is allowed instead",
    "oneOf": "give each branch a required property with a const of its own",
    "if": "write one anyOf branch for each case",
    "minProperties": "require the properties by name",
    "multipleOf": "use a step of fewer digits",
    "unevaluatedProperties": "use additionalProperties with all names in one place",
    "unevaluatedItems": "use prefixItems and items in one place",
    "$ref": "refer to a definition inside the schema (#/$defs/…)",
}


@dataclass(frozen=True)
class SchemaReport:
    """How one schema is served.

    `how`: automaton, llguidance, checked or refused; `keyword` and `pointer`: what was refused or
    is left to a check; `states`: of the automaton; `ms`: until the automaton is there;
    `admitted`: for each instance whether it can be said in our spelling.
    """

    name: str
    accepted: bool
    how: str
    keyword: str | None = None
    pointer: str | None = None
    hint: str | None = None
    states: int | None = None
    ms: float = 0.0
    admitted: tuple[bool, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        made = asdict(self)
        if self.admitted is None:
            del made["admitted"]
        return made


def check_schema(  # noqa: PLR0913 - what the command line offers
    name: str,
    schema: Any,
    instances: Sequence[Any] | None = None,
    *,
    arguments: bool = False,
    openai_strict: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> SchemaReport:
    """Plan and compile one schema and tell how it is served."""
    begun = time.perf_counter()
    faults = strict_faults(schema) if openai_strict else []
    if faults:
        return SchemaReport(name, False, "refused", *faults[0], ms=_since(begun))
    try:
        planned = plan(schema, arguments=arguments, limits=limits)
    except UnsupportedSchema as fault:
        hint = f"{fault.reason}; {HINTS[fault.keyword]}" if fault.keyword in HINTS else fault.reason
        return SchemaReport(
            name, False, "refused", fault.keyword, fault.pointer, hint, ms=_since(begun)
        )
    return _served(name, planned, instances, begun, limits)


def _served(
    name: str, planned: SchemaPlan, instances: Sequence[Any] | None, begun: float, limits: Limits
) -> SchemaReport:
    how: str = planned.how
    checks = planned.checks
    automaton = None
    try:
        if planned.expression is not None:
            automaton = compile_dfa(planned.expression, state_limit=limits.states)
    except EmptyLanguage as fault:
        return SchemaReport(name, False, "refused", hint=str(fault), ms=_since(begun))
    except GrammarTooLarge:
        checks = planned.llguidance.checks
        how = "checked" if checks else "llguidance"
    took = _since(begun)
    admitted = None
    if instances is not None:
        admitted = tuple(_can_be_said(planned, automaton, one) for one in instances)
    keyword, pointer = checks[0] if checks else (None, None)
    states = None if automaton is None else automaton.rows
    return SchemaReport(
        name, True, how, keyword, pointer, HINTS.get(keyword or ""), states, took, admitted
    )


def _can_be_said(planned: SchemaPlan, automaton: DFA | None, value: Any) -> bool:
    if not planned.satisfies(value):
        return False
    # Where all orders are too many to try, what satisfies the schema is taken to be sayable.
    return automaton is None or admits(automaton, value) is not False


def _since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)
