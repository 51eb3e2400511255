"""What the first compilation would load or compile, loaded before a request waits for it."""

from falsework.grammars.dfa import START, compile_dfa, from_bytes
from falsework.grammars.masks import TokenMasks
from falsework.grammars.schema_plan import plan
from falsework.grammars.vocabulary import Vocabulary

EVERYDAY = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 9},
        "when": {"type": "string", "format": "date-time", "pattern": "^2"},
        "count": {"type": "integer", "minimum": 0},
        "free": {},
    },
}


def warm_up() -> None:
    """Compile what numba has to, seconds at the first start, or load it; make what is shared."""
    vocabulary = Vocabulary([b"o", b"k", b"ok", None], [3])
    planned = plan(EVERYDAY)
    assert planned.expression is not None, "an automaton says it"
    automaton = from_bytes(compile_dfa(planned.expression).to_bytes())
    TokenMasks(automaton, vocabulary, 1).mask_for(START)
