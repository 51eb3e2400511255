"""llguidance: what no byte automaton can say (recursion, Lark), within limits."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import llguidance

LIMITS = llguidance.LLParserLimits(
    max_lexer_states=50_000,  # at most 2 kB each
    precompute_large_lexemes=False,  # walks the whole vocabulary for each, whatever it costs
    verbose_errors=False,  # errors would quote the client's grammar
)
"""Of one grammar; what isn't named here is llguidance's own bound: the steps of making its lexer
(1,000,000), its symbols (500,000), and for each mask the lexer's steps (200,000) and the parser's
items (50,000)."""

SPELLING: Mapping[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""Our spelling of JSON as llguidance's options; they stand in a schema as `x-guidance`."""


class UnsupportedGrammar(ValueError):
    """A grammar that llguidance can't read, or that exceeds its limits."""


class GrammarFailure(RuntimeError):
    """A grammar that exceeded its limits, or failed otherwise, while a reply was decoded."""


class _Spelled:
    """A vocabulary as `llguidance.TokenizerWrapper` asks for it."""

    def __init__(
        self,
        tokens: Sequence[bytes | None],
        ends: Sequence[int],
        encode: Callable[[str], Sequence[int]],
    ) -> None:
        self.tokens = [token or b"" for token in tokens]
        self.eos_token_id = ends[0]
        self.bos_token_id = None
        self.special_token_ids = list(ends)
        self._encode = encode

    def __call__(self, text: bytes | str) -> list[int]:
        """Return the tokens of a text, as the model is used to see it."""
        return list(self._encode(text.decode() if isinstance(text, bytes) else text))


def make_tokenizer(
    tokens: Sequence[bytes | None], ends: Sequence[int], encode: Callable[[str], Sequence[int]]
) -> llguidance.LLTokenizer:
    """Return llguidance's view of a vocabulary, in which markers are spelled as any text.

    Takes up to a second for a large one, during which no other thread runs.
    """
    spelled = llguidance.TokenizerWrapper(_Spelled(tokens, ends, encode))
    return llguidance.LLTokenizer(spelled, eos_token=list(ends))


@functools.lru_cache(maxsize=1)
def byte_tokenizer() -> llguidance.LLTokenizer:
    """Return a vocabulary of single bytes, for questions about a grammar and no model."""
    return make_tokenizer([*(bytes([one]) for one in range(256)), None], [256], str.encode)


def compile_grammar(tokenizer: llguidance.LLTokenizer, grammar: str) -> llguidance.LLMatcher:
    """Return a matcher at the beginning of a grammar; raise UnsupportedGrammar."""
    matcher = llguidance.LLMatcher(tokenizer, grammar, limits=LIMITS, log_level=0)
    if not matcher.is_error():
        matcher.compute_bitmask()  # the first mask may exceed the limits, too
    if matcher.is_error():
        raise UnsupportedGrammar(reason(matcher.get_error()))
    return matcher


def reason(error: str) -> str:
    """Return what llguidance says, without where it stands in the text that we made."""
    first, *more = error.splitlines()
    for marker in ("failed to compile JSON schema: ", "Unimplemented keys: "):
        at = first.find(marker)
        if at >= 0:
            first = first[at:].removeprefix("failed to compile JSON schema: ")
    details = [line.removeprefix("error: ") for line in more if line.startswith("error: ")]
    return " ".join([first[:200], *details])[:400]


def is_empty(matcher: llguidance.LLMatcher) -> bool:
    """Tell whether nothing can be said from here."""
    return not matcher.is_accepting() and not any(matcher.compute_bitmask())


def json_rule(schema: Mapping[str, Any] | bool) -> str:
    """Return a schema as the right side of a Lark rule."""
    described = {"not": {}} if schema is False else {} if schema is True else dict(schema)
    return f"%json {json.dumps({**described, 'x-guidance': SPELLING}, ensure_ascii=False)}"
