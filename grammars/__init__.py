from falsework.grammars import json_values
from falsework.grammars.call_decision import CallDecision, states_behind_calls
from falsework.grammars.expressions import GrammarTooLarge, literal, sequence
from falsework.grammars.free_text import text_until_marker
from falsework.grammars.json_spans import value_span
from falsework.grammars.openai_strict import strict_faults
from falsework.grammars.schema_errors import UnsupportedSchema
from falsework.grammars.schema_plan import DEFAULT_LIMITS, Limits, SchemaPlan, plan
from falsework.grammars.schema_terms import Check

__all__ = [
    "DEFAULT_LIMITS",
    "CallDecision",
    "Check",
    "GrammarTooLarge",
    "Limits",
    "SchemaPlan",
    "UnsupportedSchema",
    "json_values",
    "literal",
    "plan",
    "sequence",
    "states_behind_calls",
    "strict_faults",
    "text_until_marker",
    "value_span",
]
