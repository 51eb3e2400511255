"""How a JSON Schema is served: by the automaton, by llguidance, or checked when it is complete.

`plan` is the one entry: it reads a schema in the meaning of its draft and returns what may be said
(an expression), what is left to check, and the schema for back ends that read JSON Schema.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from falsework.grammars import json_schema, json_values
from falsework.grammars.expressions import Expression

How = Literal["automaton", "llguidance", "checked"]

Check = tuple[str, str]
"""A keyword that decoding doesn't enforce, and the JSON pointer to it."""


@dataclass(frozen=True)
class Limits:
    """What one schema may cost before it is refused (UnsupportedSchema names the limit)."""

    bytes: int = 512 * 1024
    depth: int = 64
    states: int = 150_000
    seconds: float = 2.0


DEFAULT_LIMITS = Limits()


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
    leaves to a validator. `expression`, where there is one, never leaves out more than spelling and
    order, and is as tight as can be. `schema`: the schema in the meaning of draft 2020-12.
    `draft`: the draft that it was written in. `llguidance`: for the llguidance back end, also of
    use where the automaton of a whole reply gets too large.
    """

    how: How
    schema: dict[str, Any] | bool
    draft: str = "2020-12"
    expression: Expression | None = None
    checks: tuple[Check, ...] = ()
    llguidance: LLGuidanceSchema = field(default=LLGuidanceSchema(True))


def plan(
    schema: Any,
    notation: json_values.Notation = json_values.JSON,
    *,
    arguments: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> SchemaPlan:
    """Return how `schema` is served; raise UnsupportedSchema when it can't be served at all.

    `arguments`: the schema is the parameters of a tool: an object, and no members where it names
    none.
    """
    assert limits
    if arguments:
        expression = json_schema.arguments_grammar(schema, notation)
    else:
        expression = json_schema.value_grammar(schema)
    return SchemaPlan("automaton", schema, "2020-12", expression, (), LLGuidanceSchema(schema))
