"""Random replies under the constraints of schemas: is any that is let out invalid?

    python bench/fuzz_schemas.py PATH [--replies 20] [--sample 1000] [--tokens 400]

PATH is as for bench/schemas.py. Each reply is a response_format's answer, decoded through the
server's own constraint and matcher with Llama 3's vocabulary: random logits (normal) at
temperature 1.5; behind 40 tokens those that close something get a bonus, so that replies end. What
is complete is judged by two validators, with formats. Where the server checks what is complete,
a miss is counted, but not let out. Exits with 1 where something invalid is.
"""

import argparse
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import jsonschema
import jsonschema_rs
import numpy as np
from schemas import read

from falsework.grammars import plan
from falsework.grammars.dfa import from_bytes
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.vocabulary import mask_width
from falsework.prompts.dialects import DIALECTS
from falsework.server.engines.llguidance_matcher import LlguidanceGrammar, LlguidanceMatcher
from falsework.server.engines.matcher import CompiledGrammar, GrammarMatcher
from falsework.server.errors import InvalidSchemaError
from falsework.server.generation.constraints import ANSWER, CompiledConstraint, ConstraintCompiler
from falsework.server.generation.trial_worker import VALIDATORS

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.real_tokenizers import Real, llama3

TEMPERATURE = 1.5
FREE_TOKENS = 40
BONUS = 12.0
CLOSING = (b'"', b"]", b"}")
JUDGES: Mapping[str, Any] = {
    "4": jsonschema.Draft4Validator,
    "6": jsonschema.Draft6Validator,
    "7": jsonschema.Draft7Validator,
    "2019-09": jsonschema.Draft201909Validator,
    "2020-12": jsonschema.Draft202012Validator,
}


class RandomModel:
    """Samples from random logits."""

    def __init__(self, model: Real, seed: int) -> None:
        size = 32 * mask_width(len(model.vocabulary.tokens))
        self._draw = np.random.default_rng(seed)
        logits = self._draw.normal(size=8 * size) / TEMPERATURE
        self._scores = logits + self._draw.gumbel(size=8 * size)
        self._bonus = np.zeros(size)
        for number, token in enumerate(model.vocabulary.tokens):
            if token and token in CLOSING:
                self._bonus[number] = BONUS
        self._bonus[list(model.vocabulary.ends)] = BONUS
        self._size = size

    def sample(self, mask: Any, *, closing: bool) -> int:
        """Return a token that a mask admits."""
        start = int(self._draw.integers(len(self._scores) - self._size))
        scores = self._scores[start : start + self._size]
        admitted = np.unpackbits(mask.view(np.uint8), bitorder="little").view(np.bool_)
        likely = scores + self._bonus if closing else scores
        return int(np.where(admitted, likely, -np.inf).argmax())


def matcher_of(
    compiled: CompiledConstraint, compiler: ConstraintCompiler, model: Real
) -> GrammarMatcher | LlguidanceMatcher:
    """Return the matcher that the engine would make of a constraint."""
    constraint, width = compiled.constraint, mask_width(len(model.vocabulary.tokens))
    if constraint.kind == "automaton":
        automaton = from_bytes(constraint.grammar)
        return GrammarMatcher(CompiledGrammar(automaton, model.vocabulary, width, model.encode))
    tokenizer = compiler.llguidance_tokenizer()
    grammar = LlguidanceGrammar(
        constraint.grammar.decode(), tokenizer, model.vocabulary, width, model.encode
    )
    return LlguidanceMatcher(grammar)


def decode(
    matcher: GrammarMatcher | LlguidanceMatcher, sampler: RandomModel, model: Real, most: int
) -> str | None:
    """Return a random reply; None where it isn't complete behind `most` tokens."""
    said: list[int] = []
    while not matcher.is_terminated and len(said) < most:
        token = sampler.sample(matcher.token_bitmask(), closing=len(said) > FREE_TOKENS)
        if not matcher.accept_token(token):
            msg = f"the mask admits {token}, the matcher doesn't"
            raise AssertionError(msg)
        said.append(token)
    complete = matcher.is_terminated
    matcher.reset()
    return model.vocabulary.text_of(said[:-1]).decode() if complete else None


def faults(schema: Any, draft: str, text: str) -> Sequence[str]:
    """Return which validators call a text invalid."""
    value = json.loads(text)
    first = VALIDATORS[draft](schema, validate_formats=True, registry=jsonschema_rs.Registry([]))
    judge = JUDGES[draft]
    second = judge(schema, format_checker=judge.FORMAT_CHECKER)
    found = [] if first.is_valid(value) else ["jsonschema-rs"]
    with contextlib.suppress(RecursionError, jsonschema.exceptions.SchemaError, TypeError):
        found += [] if second.is_valid(value) else ["jsonschema"]  # if it can read the schema
    return found


def main() -> None:
    """Decode, judge, print; exit with 1 where something invalid is let out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--replies", type=int, default=20)
    parser.add_argument("--sample", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    schemas = read(options.path)
    random.Random(options.seed).shuffle(schemas)
    model = llama3()
    compiler = ConstraintCompiler(model.vocabulary, model.encode)
    sampler = RandomModel(model, options.seed)
    counts: Counter[str] = Counter()
    began = time.monotonic()
    for schema in schemas[: options.sample]:
        form = ReplyFormat(DIALECTS["hermes"].markup, answer=schema)
        try:
            compiled = anyio.run(compiler.compiled, form)
        except InvalidSchemaError:
            counts["schemas refused"] += 1
            continue
        checked = compiled.checks.get(ANSWER)
        kind = compiled.constraint.kind
        counts[f"schemas by {kind}{', checked' if checked else ''}"] += 1
        planned = plan(schema)
        matcher = matcher_of(compiled, compiler, model)
        for _ in range(options.replies):
            text = decode(matcher, sampler, model, options.tokens)
            if text is None:
                counts["replies cut"] += 1
                continue
            counts["replies complete"] += 1
            found = faults(planned.schema, planned.draft, text)
            if found and checked and "jsonschema-rs" in found:
                counts[f"misses caught by the check, {kind}"] += 1
            elif found:
                counts[f"INVALID by {', '.join(found)}"] += 1
                print("INVALID", found, kind, json.dumps(schema)[:600], text[:300], flush=True)
    for what, count in sorted(counts.items()):
        print(f"{what}: {count}")
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(any(what.startswith("INVALID") for what in counts))


if __name__ == "__main__":
    main()
