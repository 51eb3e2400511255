"""What a tokenizer spells, byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import chat_templates
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.dialects import DIALECTS
from falsework.prompts.tokenizers import UnknownTokenizer, build_vocabulary, eos_token_ids

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
MARKERS = DIALECTS["deepseek_r1"].markers
CALLS_BEGIN = "<｜tool▁calls▁begin｜>"


@pytest.fixture(scope="module")
def smol(smollm2: Path) -> Any:
    return chat_templates.smollm2(smollm2)


@pytest.fixture(scope="module")
def deepseek() -> Any:
    return chat_templates.deepseek(chat_templates.DEEPSEEK_R1)


def sentencepiece() -> Any:
    """Make a tokenizer like Llama 2's: blanks as U+2581, bytes where there is no piece."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "h", "i", "hi", "▁hi", "."]
    merges = [("h", "i"), ("▁", "hi")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    inside = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    inside.add_special_tokens(["<unk>", "<s>", "</s>"])
    inside.normalizer = normalizers.Replace(" ", "▁")
    inside.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inside, eos_token="</s>")


def spelled(tokenizer: Any, vocabulary: Vocabulary, text: str) -> bytes:
    numbers = tokenizer.encode(text, add_special_tokens=False)
    said = [vocabulary.tokens[number] for number in numbers]
    assert None not in said
    return b"".join(token for token in said if token)


@pytest.mark.parametrize("name", ["smol", "deepseek"])
def test_the_bytes_of_a_texts_tokens_are_the_texts(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    vocabulary = build_vocabulary(tokenizer, ())
    # The built-in model's vocabulary has no token for some control characters and rare beginnings.
    texts = TEXTS.filter(lambda text: vocabulary.alphabet[list(text.encode())].all())

    @given(texts)
    @settings(max_examples=150, deadline=None)
    def holds(text: str) -> None:
        assert spelled(tokenizer, vocabulary, text) == text.encode()

    holds()


def test_so_they_are_with_blanks_as_u2581_and_bytes_as_fallback() -> None:
    tokenizer = sentencepiece()
    vocabulary = build_vocabulary(tokenizer, ())

    for text in ("hi hi.", "  hi", "é😀\n\x00", "hi\U00040000", ""):
        assert spelled(tokenizer, vocabulary, text) == text.encode()


def test_special_tokens_are_spelled_only_where_a_marker_spells_them(deepseek: Any) -> None:
    number = deepseek.convert_tokens_to_ids(CALLS_BEGIN)
    end = deepseek.eos_token_id

    with_markers, without = build_vocabulary(deepseek, MARKERS), build_vocabulary(deepseek, ())

    assert with_markers.tokens[number] == CALLS_BEGIN.encode()
    assert with_markers.tokens[end] is None
    special = [t["id"] for t in added(deepseek) if t["special"]]
    assert all(without.tokens[one] is None for one in special)


def test_added_tokens_that_are_not_special_are_text(deepseek: Any) -> None:
    (think,) = [token for token in added(deepseek) if token["content"] == "<think>"]

    vocabulary = build_vocabulary(deepseek, ())

    assert not think["special"]
    assert vocabulary.tokens[think["id"]] == b"<think>"


def added(tokenizer: Any) -> list[Any]:
    tokens: list[Any] = json.loads(tokenizer.backend_tokenizer.to_str())["added_tokens"]
    return tokens


def test_a_reply_ends_with_the_tokenizers_end_and_those_of_the_generation_config(
    smol: Any,
) -> None:
    ends = build_vocabulary(smol, (), eos_token_ids({"eos_token_id": [0, 2]})).ends

    assert set(ends) == {0, 2}


@pytest.mark.parametrize(
    ("said", "ends"), [({}, []), ({"eos_token_id": None}, []), ({"eos_token_id": 7}, [7]),
                       ({"eos_token_id": [7, 9]}, [7, 9])]
)  # fmt: skip
def test_a_generation_config_names_no_end_or_one_or_several(said: Any, ends: list[int]) -> None:
    assert list(eos_token_ids(said)) == ends


def test_a_tokenizer_whose_bytes_nobody_knows_is_refused() -> None:
    inside = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    inside.decoder = decoders.WordPiece()

    with pytest.raises(UnknownTokenizer, match="WordPiece"):
        build_vocabulary(PreTrainedTokenizerFast(tokenizer_object=inside), ())


def test_tokens_that_the_model_has_no_logit_for_are_left_out(smol: Any) -> None:
    """Some tokenizers have more tokens than their model."""
    whole = build_vocabulary(smol, (), (2, 49_000))

    cut = build_vocabulary(smol, (), (2, 49_000), 40_000)

    assert cut.tokens == whole.tokens[:40_000]
    assert 49_000 in whole.ends
    assert set(cut.ends) == {2}
    assert len(cut.plain.rows[0]) == 40_000 // 32
