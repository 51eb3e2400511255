"""What a trial process does: compile a grammar of llguidance, judge a JSON text by its schema.

It reads a request a line, as JSON, and writes an answer a line. Little is imported here: the
process starts while a request waits.
"""

import json
import resource
import sys
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs

from falsework.grammars.llguidance_grammar import (
    UnsupportedGrammar,
    byte_tokenizer,
    compile_grammar,
)

MEMORY_BYTES = 2 * 2**30
"""Of addresses; what needs more ends the process."""
STACK_BYTES = 1 * 2**20
"""An eighth of what threads have where the grammar is compiled again: a grammar that nests too
deep ends this process, and no other."""
MAX_QUOTED = 200


def worker_main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()


def _serve() -> None:
    byte_tokenizer()
    _write(None)  # it is ready
    for line in sys.stdin:
        request = json.loads(line)
        _write(ANSWERS[request.pop("what")](**request))


def _write(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _compile(grammar: str) -> str | None:
    """Return the reason why a grammar can't be compiled."""
    try:
        compile_grammar(byte_tokenizer(), grammar)
    except UnsupportedGrammar as error:
        return str(error)
    return None


def _judge(schema: str, draft: str, text: str) -> Mapping[str, Any] | None:
    """Return the first fault of a JSON text: keyword, its place, the value's place, the value."""
    try:
        value = json.loads(text)
    except ValueError:
        return None  # an answer that a stop string has cut
    validator = _validator(schema, draft)
    if validator.is_valid(value):
        return None
    error = next(iter(validator.iter_errors(value)))
    path = list(error.instance_path)
    keyword = str(error.schema_path[-1]) if error.schema_path else "false"
    repeated = [_repeated(error.instance)] if keyword == "uniqueItems" else []
    return {
        "keyword": keyword,
        "pointer": "".join(f"/{step}" for step in error.schema_path),
        "path": path,
        "culprit": path + repeated,
        "value": json.dumps(error.instance, ensure_ascii=False)[:MAX_QUOTED],
    }


def _repeated(items: list[Any]) -> int:
    """Return the position of the first item that equals an earlier one."""
    seen: set[str] = set()
    for position, item in enumerate(items):
        spelled = json.dumps(item, sort_keys=True)
        if spelled in seen:
            return position
        seen.add(spelled)
    return len(items) - 1  # equal in another spelling: 1 and 1.0


@lru_cache(maxsize=64)
def _validator(schema: str, draft: str) -> Any:
    return VALIDATORS[draft](
        json.loads(schema), validate_formats=True, registry=jsonschema_rs.Registry([])
    )


VALIDATORS: Mapping[str, Callable[..., Any]] = {
    "4": jsonschema_rs.Draft4Validator,
    "6": jsonschema_rs.Draft6Validator,
    "7": jsonschema_rs.Draft7Validator,
    "2019-09": jsonschema_rs.Draft201909Validator,
    "2020-12": jsonschema_rs.Draft202012Validator,
}
ANSWERS: Mapping[str, Callable[..., Any]] = {"compile": _compile, "judge": _judge}
