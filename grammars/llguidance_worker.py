"""A process of its own that compiles grammars, so that one which takes too long can be ended.

It reads a grammar a line, as a JSON string, and writes the reason why it can't be compiled, or "".
Nothing but llguidance is imported here: the process starts while a request waits.
"""

import json
import resource
import sys

from falsework.grammars.llguidance_grammar import (
    UnsupportedGrammar,
    byte_tokenizer,
    compile_grammar,
)

MEMORY_BYTES = 2 * 2**30
"""Of addresses; a grammar that needs more ends the process."""


def worker_main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    tokenizer = byte_tokenizer()
    _answer("")  # it is ready
    for line in sys.stdin:
        try:
            compile_grammar(tokenizer, json.loads(line))
        except UnsupportedGrammar as error:
            _answer(str(error))
        else:
            _answer("")


def _answer(reason: str) -> None:
    sys.stdout.write(json.dumps(reason) + "\n")
    sys.stdout.flush()
