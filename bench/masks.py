"""Times of first and later masks, beside xgrammar and llguidance: one process, one run.

    python bench/masks.py --data FOLDER [--schemas 300]

FOLDER is `bfcl_eval/data` of the package bfcl-eval, the vocabulary Llama 3's (128k tokens). Every
engine gets the same schemas and walks the same tokens, which ours draws at random; one that bars
them stops there, and is counted. Nothing is kept from one schema to the next.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import llguidance
import numpy as np
import psutil
import xgrammar

from falsework.grammars.dfa import START, compile_dfa
from falsework.grammars.json_schema import arguments_grammar
from falsework.grammars.masks import TokenMasks, tokens_in_mask
from falsework.grammars.vocabulary import Vocabulary, mask_width

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bfcl import schema_of
from support.real_tokenizers import llama3

Schema = Mapping[str, Any]
STEPS = 40
COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Walk(Protocol):
    """One engine on one schema."""

    def mask(self) -> object:
        """Compute which tokens may follow."""

    def step(self, token: int) -> bool:
        """Go on; False where the token is barred."""


class Ours:
    """Falsework's DFA and its lazy masks."""

    def __init__(self, schema: Schema, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._automaton = compile_dfa(arguments_grammar(schema), vocabulary.alphabet)
        width = mask_width(len(vocabulary.tokens))
        self._masks = TokenMasks(self._automaton, vocabulary, width)
        self._row = np.empty(width, np.int32)
        self._state = START

    def mask(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        self._row[:] = self._masks.mask_for(self._state)
        return self._row

    def step(self, token: int) -> bool:
        self._state = self._automaton.step(self._state, self._vocabulary.tokens[token] or b"")
        return bool(self._state)


class XGrammar:
    """xgrammar without white space beyond what models are trained to write."""

    def __init__(self, schema: Schema, compiler: xgrammar.GrammarCompiler, size: int) -> None:
        compiled = compiler.compile_json_schema(json.dumps(schema), any_whitespace=False)
        self._matcher = xgrammar.GrammarMatcher(compiled)
        self._row = xgrammar.allocate_token_bitmask(1, size)

    def mask(self) -> object:
        return self._matcher.fill_next_token_bitmask(self._row)

    def step(self, token: int) -> bool:
        return bool(self._matcher.accept_token(token))


class Guidance:
    """llguidance, the same."""

    def __init__(self, schema: Schema, tokenizer: llguidance.LLTokenizer) -> None:
        compact = {**schema, "x-guidance": COMPACT}
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(compact))
        self._matcher = llguidance.LLMatcher(tokenizer, grammar)
        if self._matcher.is_error():
            raise ValueError(self._matcher.get_error())

    def mask(self) -> object:
        return self._matcher.compute_bitmask()

    def step(self, token: int) -> bool:
        return bool(self._matcher.consume_token(token))


class Spelled:
    """A vocabulary as llguidance's wrapper wants it."""

    def __init__(self, vocabulary: Vocabulary, encode: Callable[[str], Sequence[int]]) -> None:
        self.tokens = [token or b"" for token in vocabulary.tokens]
        self.eos_token_id = self.bos_token_id = vocabulary.ends[0]
        self.special_token_ids = list(vocabulary.ends)
        self._encode = encode

    def __call__(self, text: bytes | str) -> list[int]:
        return list(self._encode(text.decode() if isinstance(text, bytes) else text))


def schemas(folder: Path, count: int) -> list[Schema]:
    """Return a seeded sample of the parameters of BFCL's functions."""
    found = []
    for category in ("simple_python", "multiple", "parallel", "live_simple", "live_multiple"):
        file = folder / f"BFCL_v4_{category}.json"
        for line in file.read_text().splitlines():
            functions = json.loads(line).get("function") or []
            found += [schema_of(one["parameters"]) for one in functions]
    return random.Random(1).sample(found, min(count, len(found)))


def path(walk: Ours, ends: Sequence[int], draw: random.Random) -> Iterator[int]:
    """Draw tokens that ours allows, short ones rather than long strings."""
    for _ in range(STEPS):
        may = [token for token in tokens_in_mask(walk.mask()) if token not in ends]
        if not may:
            return
        token = draw.choice(may)
        yield token
        walk.step(token)


def measure(make: Callable[[Schema], Walk], asked: Sequence[tuple[Schema, list[int]]]) -> str:
    """Return an engine's figures."""
    process = psutil.Process()
    before = process.memory_info().rss
    first, later, refused, barred, held = [], [], 0, 0, []
    for schema, tokens in asked:
        began = time.perf_counter()
        try:
            walk = make(schema)
        except (ValueError, RuntimeError):
            refused += 1
            continue
        walk.mask()
        first.append(time.perf_counter() - began)
        held.append(walk)
        for token in tokens:
            if not walk.step(token):
                barred += 1
                break
            began = time.perf_counter()
            walk.mask()
            later.append(time.perf_counter() - began)
    grown = (process.memory_info().rss - before) / 2**20
    firsts = 1e3 * np.percentile(first, [50, 99])
    laters = 1e6 * np.percentile(later, [50, 99])
    return (
        f"first mask p50 {firsts[0]:.2f} ms, p99 {firsts[1]:.1f} ms | mask p50 {laters[0]:.0f} µs, "
        f"p99 {laters[1]:.0f} µs | {len(later)} masks | refused {refused}, "
        f"barred {barred} | {grown:.0f} MiB for {len(held)} schemas kept"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--schemas", type=int, default=300)
    options = parser.parse_args()
    model = llama3()
    size = len(model.vocabulary.tokens)
    info = xgrammar.TokenizerInfo(
        [token or b"" for token in model.vocabulary.tokens],
        vocab_type=xgrammar.VocabType.RAW,
        vocab_size=size,
        stop_token_ids=list(model.vocabulary.ends),
    )
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    spelled = llguidance.TokenizerWrapper(Spelled(model.vocabulary, model.encode))
    tokenizer = llguidance.LLTokenizer(spelled)
    engines: dict[str, Callable[[Schema], Walk]] = {
        "Falsework": lambda schema: Ours(schema, model.vocabulary),
        "xgrammar": lambda schema: XGrammar(schema, compiler, size),
        "llguidance": lambda schema: Guidance(schema, tokenizer),
    }
    draw = random.Random(2)
    asked, ours_refused = [], 0
    for schema in schemas(options.data, options.schemas):
        try:
            walk = Ours(schema, model.vocabulary)
            asked.append((schema, list(path(walk, model.vocabulary.ends, draw))))
        except ValueError:
            ours_refused += 1
    print(f"{len(asked)} schemas; {ours_refused} more are refused by Falsework and left out")
    for name, make in engines.items():
        print(f"{name}: {measure(make, asked)}", flush=True)


if __name__ == "__main__":
    main()
