"""What a grammar of llguidance may say, byte by byte."""

import numpy as np
from llguidance import LLMatcher

from falsework.grammars.llguidance_grammar import byte_tokenizer, compile_grammar

END = 256


def matcher(grammar: str) -> LLMatcher:
    return compile_grammar(byte_tokenizer(), grammar)


def accepts(compiled: LLMatcher, text: str) -> bool:
    """Tell whether a text, whole, is in the language."""
    begun, said = compiled.deep_copy(), list(text.encode())
    return begun.try_consume_tokens(said) == len(said) and begun.is_accepting()


def following(begun: LLMatcher) -> set[int]:
    """Return the bytes that may follow, END where the text may end."""
    bits = np.unpackbits(np.frombuffer(begun.compute_bitmask(), np.uint8), bitorder="little")
    return {int(token) for token in np.flatnonzero(bits)}
