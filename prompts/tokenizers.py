"""What a model's tokenizer spells, byte for byte."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.errors import UnusableModel


class UnknownTokenizer(UnusableModel):
    """A tokenizer whose tokens can't be turned into bytes."""


class Tokenizer(Protocol):
    """What we use of a Hugging Face tokenizer."""

    eos_token_id: int | None
    backend_tokenizer: Any

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the tokens of a text."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        """Return the text of a conversation, as the model was trained on."""

    def get_chat_template(self, *, tools: list[Any] | None) -> str:
        """Return the chat template."""


def load_tokenizer(model: str, chat_template: str = "") -> Tokenizer:
    """Return a model's tokenizer, with the chat template of the file `chat_template` if given.

    Raise UnusableModel where there is none that this server can use. A `tekken.json` beside the
    tokenizer is left aside: its own class has neither a chat template nor a vocabulary to read.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds, only needed here

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, mistral_format=False)
    except (OSError, ValueError, KeyError, ImportError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UnusableModel(f"The tokenizer of {model} can't be loaded: {reason}") from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        kind = type(tokenizer).__name__
        raise UnusableModel(f"The tokenizer of {model} ({kind}) has no tokenizer.json.")
    if chat_template:
        try:
            tokenizer.chat_template = Path(chat_template).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableModel(f"The chat template can't be read: {error}") from error
    return tokenizer  # type: ignore[no-any-return]


def build_vocabulary(
    tokenizer: Tokenizer,
    markers: Iterable[str],
    ends: Iterable[int] = (),
    size: int | None = None,
) -> Vocabulary:
    """Return the tokens as bytes; special tokens only where a marker spells them.

    `ends` are the tokens that end a reply, beside the tokenizer's own; `size` is how many tokens
    the model has a logit for, where the tokenizer may have more. Source of the two spellings:
    https://github.com/openai/gpt-2/blob/master/src/encoder.py (bytes as printable characters), and
    SentencePiece's blanks (U+2581) with byte fallback (<0x0A>).
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    spell = _spelling(json.dumps(described.get("decoder") or {}))
    markers = tuple(markers)
    added = {token["id"]: token for token in described["added_tokens"]}
    pieces: dict[str, int] = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
    tokens: list[bytes | None] = [None] * (max(pieces.values()) + 1)
    for piece, number in pieces.items():
        token = added.get(number)
        if token is None:
            tokens[number] = spell(piece)
        elif not token["special"] or any(piece in marker for marker in markers):
            tokens[number] = piece.encode()
    own = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    sayable = [end for end in dict.fromkeys((*own, *ends)) if size is None or end < size]
    return Vocabulary(tokens[:size], tuple(sayable))


def eos_token_ids(generation: Mapping[str, Any]) -> Sequence[int]:
    """Return the tokens that a model's generation_config names as ends of a reply."""
    ends = generation.get("eos_token_id")
    if ends is None:
        return ()
    return (ends,) if isinstance(ends, int) else tuple(ends)


def _spelling(decoder: str) -> Any:
    if "ByteLevel" in decoder:
        return _from_printable
    if "ByteFallback" in decoder or "Metaspace" in decoder or "\u2581" in decoder:
        return _from_sentencepiece
    msg = f"The tokenizer's decoder is neither byte-level nor SentencePiece: {decoder}"
    raise UnknownTokenizer(msg)


def _printable() -> dict[str, int]:
    """Return the printable character that stands for each byte, as GPT-2's encoder chose them."""
    themselves = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = [byte for byte in range(256) if byte not in themselves]
    return {chr(byte): byte for byte in themselves} | {
        chr(256 + offset): byte for offset, byte in enumerate(shifted)
    }


_BYTES = _printable()


def _from_printable(piece: str) -> bytes | None:
    try:
        return bytes(_BYTES[character] for character in piece)
    except KeyError:
        return None


def _from_sentencepiece(piece: str) -> bytes | None:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):  # noqa: PLR2004
        return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode()
