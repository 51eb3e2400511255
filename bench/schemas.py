"""From a JSON Schema to the first mask, beside llguidance and xgrammar: one run, the same schemas.

    python bench/schemas.py PATH [--sample 500] [--limit 10]

PATH is a folder of JSON files or a file of JSON lines, each a schema, or an object with one as its
`schema`. The vocabulary is Llama 3's (128k tokens). Every engine works in a process of its own,
which is ended and counted where one schema takes longer than `--limit` seconds; every schema goes
to all engines before the next does.
"""

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
import xgrammar

from falsework.grammars import GrammarTooLarge, plan
from falsework.grammars.dfa import START, EmptyLanguage, compile_dfa
from falsework.grammars.llguidance_grammar import (
    SPELLING,
    compile_grammar,
    json_rule,
    make_tokenizer,
)
from falsework.grammars.masks import TokenMasks
from falsework.grammars.vocabulary import mask_width

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.real_tokenizers import Real, llama3

Engine = Callable[[Any], str]
"""Computes the first mask of a schema; returns how it is served, or raises ValueError."""

TIMEOUT = "over the limit"
REFUSED = "refused"


def ours(model: Real) -> Engine:
    """Return Falsework: its automaton and mask, or the schema that it gives to llguidance."""
    vocabulary = model.vocabulary
    tokenizer = make_tokenizer(vocabulary.tokens, vocabulary.ends, model.encode)
    width = mask_width(len(vocabulary.tokens))

    def first_mask(schema: Any) -> str:
        planned = plan(schema)
        if planned.expression is not None:
            try:
                automaton = compile_dfa(planned.expression, vocabulary.alphabet)
            except GrammarTooLarge:
                pass
            else:
                TokenMasks(automaton, vocabulary, width).mask_for(START)
                return planned.how
        rule = json_rule(planned.llguidance.schema)
        grammar = json.dumps({"grammars": [{"lark_grammar": f"start: {rule}"}]})
        compile_grammar(tokenizer, grammar)  # and its first mask
        return "llguidance" if planned.how == "automaton" else planned.how

    return first_mask


def guidance(model: Real) -> Engine:
    """Return llguidance with the schema as it is."""
    vocabulary = model.vocabulary
    tokenizer = make_tokenizer(vocabulary.tokens, vocabulary.ends, model.encode)

    def first_mask(schema: Any) -> str:
        described = {**schema, "x-guidance": SPELLING} if isinstance(schema, dict) else schema
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(described))
        matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return "accepted"

    return first_mask


def other(model: Real) -> Engine:
    """Return xgrammar without white space beyond what models are trained to write."""
    vocabulary = model.vocabulary
    size = len(vocabulary.tokens)
    info = xgrammar.TokenizerInfo(
        [token or b"" for token in vocabulary.tokens],
        vocab_type=xgrammar.VocabType.RAW,
        vocab_size=size,
        stop_token_ids=list(vocabulary.ends),
    )
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    row = xgrammar.allocate_token_bitmask(1, size)

    def first_mask(schema: Any) -> str:
        try:
            compiled = compiler.compile_json_schema(json.dumps(schema), any_whitespace=False)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        xgrammar.GrammarMatcher(compiled).fill_next_token_bitmask(row)
        return "accepted"

    return first_mask


ENGINES: Mapping[str, Callable[[Real], Engine]] = {
    "Falsework": ours,
    "llguidance": guidance,
    "xgrammar": other,
}
WARM_UP: Sequence[Any] = (
    {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}, "b": {}}},
    {"type": "object", "properties": {"a": {"type": "string", "format": "date-time"}}},
    {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"type": "number", "minimum": 1}}},
)


def serve(engine: Engine, connection: Connection) -> None:
    """Answer schemas with (how, seconds), in a process of its own."""
    for schema in WARM_UP:
        engine(schema)
    connection.send(None)
    while True:
        schema = connection.recv()
        began = time.perf_counter()
        try:
            how = engine(schema)
        except (ValueError, EmptyLanguage, RecursionError):
            how = REFUSED
        connection.send((how, time.perf_counter() - began))


class Worker:
    """An engine in a process that can be ended."""

    def __init__(self, engine: Engine, limit: float) -> None:
        self._engine = engine
        self._limit = limit
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(self._engine, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()

    def ask(self, schema: Any) -> tuple[str, float]:
        """Return how a schema is served, and the seconds to its first mask."""
        self._connection.send(schema)
        try:
            if self._connection.poll(self._limit):
                how, seconds = self._connection.recv()
                return how, seconds
        except (EOFError, ConnectionResetError):
            pass  # it has crashed
        self._process.kill()
        self._process.join()
        self._start()
        return TIMEOUT, self._limit


def read(path: Path) -> list[Any]:
    """Return the schemas of a folder or a file of JSON lines."""
    if path.is_dir():
        texts = [file.read_text() for file in sorted(path.rglob("*.json"))]
    else:
        texts = path.read_text().splitlines()
    found = [json.loads(text) for text in texts if text.strip()]
    return [one.get("schema", one) if isinstance(one, dict) else one for one in found]


def row(name: str, answers: Sequence[tuple[str, float]]) -> str:
    """Return an engine's line of the table."""
    accepted = [seconds for how, seconds in answers if how not in {REFUSED, TIMEOUT}]
    late = sum(how == TIMEOUT for how, _ in answers)
    times = 1e3 * np.percentile(accepted or [0.0], [50, 90, 99, 100])
    cells = [f"{100 * len(accepted) / len(answers):.1f} %", str(late)]
    cells += [f"{one:.2f}" if one < 10 else f"{one:.0f}" for one in times]  # noqa: PLR2004
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=10)
    options = parser.parse_args()
    schemas = read(options.path)
    if options.sample:
        schemas = random.Random(options.seed).sample(schemas, min(options.sample, len(schemas)))
    model = llama3()
    workers = {name: Worker(make(model), options.limit) for name, make in ENGINES.items()}
    answers: dict[str, list[tuple[str, float]]] = {name: [] for name in workers}
    for schema in schemas:
        for name, worker in workers.items():
            answers[name].append(worker.ask(schema))
    print(f"{len(schemas)} schemas, milliseconds from schema to first mask:\n")
    print(f"| | accepted | over {options.limit:g} s | p50 | p90 | p99 | max |")
    print("|---|---|---|---|---|---|---|")
    for name, told in answers.items():
        print(row(name, told))
    every = [
        number
        for number in range(len(schemas))
        if all(told[number][0] not in {REFUSED, TIMEOUT} for told in answers.values())
    ]
    print(f"\nThe {len(every)} that all three accept:\n")
    for name, told in answers.items():
        print(row(name, [told[number] for number in every]))
    served = Counter(how for how, _ in answers["Falsework"])
    shares = ", ".join(f"{how} {100 * n / len(schemas):.1f} %" for how, n in served.most_common())
    print(f"\nFalsework serves: {shares}")


if __name__ == "__main__":
    main()
