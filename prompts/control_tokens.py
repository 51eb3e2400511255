"""Text is text: what a client or a tool writes can't spell a control token of the vocabulary.

A chat template joins its own control tokens and other people's text into one string, in which the
two can't be told apart. So texts are escaped before they are rendered: a secret word is put into
each spelling of a control token. The prompt is then encoded by a copy of the tokenizer in which
control tokens have secret names, so that the spelling of one is ordinary text there.
"""

import functools
import itertools
import json
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from falsework.prompts.piece_tokens import PieceTokens, safe_cuts
from falsework.prompts.tokenizers import Tokenizer

_HAS_MARK = re.compile(r"(?s)[<\[(].*[|｜_:▁].*[>\])]|.*[|｜].*|</?think>")
"""Spellings that no ordinary text has; other added tokens are words, blanks or tags of HTML."""


_TAGS = ("<{}>", "</{}>", "<|{}|>", "[{}]")


class ControlTokens:
    """The control tokens of one vocabulary.

    An added token is one where it is special, where the chat template or the dialect (`sources`)
    writes it, or where it is spelled as a mark. Tokens of one character are none.
    """

    def __init__(self, tokenizer: Tokenizer, sources: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        written = "\n".join(sources)
        self._ids = {
            token.content: number
            for number, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items()
            if len(token.content) > 1
            and token.content.strip()
            and (token.special or token.content in written or _HAS_MARK.fullmatch(token.content))
        }
        self.ids = frozenset(self._ids.values())
        self._secret = "x" + secrets.token_hex(12)
        spellings = _trie_pattern(list(self._ids)) if self._ids else r"(?!)"
        self._spelling = re.compile(spellings)
        self._overlapping = re.compile(f"(?={spellings})")
        self._opener = _any_of(name[0] for name in self._ids)
        self._closer = _any_of(name[-1] for name in self._ids)
        self._prefixes = {name[:end] for name in self._ids for end in range(1, len(name))}
        self._suffixes = {name[start:] for name in self._ids for start in range(1, len(name))}
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        added = backend.get_added_tokens_decoder().values()
        cuts = safe_cuts(added, self._ids)
        self._cut = re.compile(_trie_pattern(list(cuts)) if cuts else r"(?!)")
        self._pieces = PieceTokens(self._encode_pieces)
        self._all_spellings = "\n".join(self._ids)
        self._longest = max(map(len, self._ids), default=0)

    @property
    def spellings(self) -> Collection[str]:
        """The control tokens as text."""
        return self._ids.keys()

    def escape(self, text: str) -> str:
        """Return the text with the secret word in each spelling of a control token.

        It also stands where the text could become one together with what stands before or behind.
        """
        if self._spelling.search(text):
            starts = [found.start() + 1 for found in self._overlapping.finditer(text)]
            pieces = [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True)]
            text = self._secret.join(pieces)
        return self._guard_before(text) + text + self._guard_behind(text)

    def _guard_before(self, text: str) -> str:
        """Return the secret word where the text could end a control token, or be its middle."""
        closers = self._closer.finditer(text, 0, self._longest)
        ends = any(text[: found.end()] in self._suffixes for found in closers)
        return self._secret if ends or self._is_inside(text) else ""

    def _guard_behind(self, text: str) -> str:
        """Return the secret word where the text could begin a control token."""
        openers = self._opener.finditer(text, max(0, len(text) - self._longest))
        begins = any(text[found.start() :] in self._prefixes for found in openers)
        return self._secret if begins else ""

    def _is_inside(self, text: str) -> bool:
        """Tell whether a short text could be the middle of a control token; words only of tags."""
        if not text or len(text) >= self._longest or text.isspace():
            return False
        if text.isalnum():
            return any(tag.format(text) in self._ids for tag in _TAGS)
        marked = self._opener.search(text) or self._closer.search(text) or "|" in text
        return bool(marked) and text in self._all_spellings

    def escape_all(self, value: Any) -> Any:
        """Return a JSON value with all its texts escaped, the names of members too."""
        if isinstance(value, str):
            return self.escape(value)
        if isinstance(value, dict):
            return {self.escape(key): self.escape_all(member) for key, member in value.items()}
        if isinstance(value, list):
            return [self.escape_all(item) for item in value]
        return value

    def unescape(self, rendered: str) -> str:
        """Return a rendered prompt as it reads."""
        return rendered.replace(self._secret, "")

    def encode(self, rendered: str) -> tuple[int, ...]:
        """Return the tokens of a rendered prompt; what was escaped is ordinary text in it."""
        starts = [found.start() for found in self._cut.finditer(rendered)]
        bounds = itertools.pairwise([0, *starts, len(rendered)])
        return self._pieces.encode([rendered[a:b] for a, b in bounds if a < b])

    def _encode_pieces(self, pieces: Sequence[str]) -> Iterable[Sequence[int]]:
        """Return the tokens of pieces of rendered prompts."""
        plain = [piece for piece in pieces if self._secret not in piece]
        encoded = self._tokenizer.backend_tokenizer.encode_batch_fast(
            plain, add_special_tokens=False
        )
        tokens = dict(zip(plain, (one.ids for one in encoded), strict=True))
        return (tokens.get(piece) or self.encode_renamed(piece) for piece in pieces)

    def encode_renamed(self, rendered: str) -> tuple[int, ...]:
        """Return the same tokens by way of the copy of the tokenizer."""
        copy, numbers = self._copy
        renamed = self._spelling.sub(lambda found: self._name(found[0]), rendered)
        encoded = copy.encode(self.unescape(renamed), add_special_tokens=False)
        return tuple(numbers.get(token, token) for token in encoded.ids)

    def _name(self, spelling: str) -> str:
        return f"<{self._secret[::-1]}:{self._ids[spelling]}>"

    @functools.cached_property
    def _copy(self) -> tuple[Any, dict[int, int]]:
        """The tokenizer with control tokens renamed, and their numbers by those in the copy."""
        described = json.loads(self._tokenizer.backend_tokenizer.to_str())
        described |= {"post_processor": None, "truncation": None, "padding": None}
        for token in described["added_tokens"]:
            token["content"] = self._renamed(token["content"])
        model = described["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self._renamed(piece): n for piece, n in model["vocab"].items()}
        else:
            model["vocab"] = [[self._renamed(piece), score] for piece, score in model["vocab"]]
        if model.get("unk_token"):
            model["unk_token"] = self._renamed(model["unk_token"])
        copy = type(self._tokenizer.backend_tokenizer).from_str(json.dumps(described))
        numbers = copy.get_vocab(with_added_tokens=True)
        return copy, {numbers[self._name(name)]: number for name, number in self._ids.items()}

    def _renamed(self, spelling: str) -> str:
        return self._name(spelling) if spelling in self._ids else spelling


def _any_of(characters: Iterable[str]) -> re.Pattern[str]:
    ways = "|".join(map(re.escape, sorted(set(characters))))
    return re.compile(ways or r"(?!)")


def _trie_pattern(words: Sequence[str]) -> str:
    """Return an expression that finds the longest of the words in time linear in its length."""
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    common = "".join(column[0] for column in alike)
    rests = [word[len(common) :] for word in words]
    by_first: dict[str, list[str]] = {}
    for rest in filter(None, rests):
        by_first.setdefault(rest[0], []).append(rest)
    if not by_first:
        return re.escape(common)
    ways = "|".join(_trie_pattern(group) for group in by_first.values())
    return f"{re.escape(common)}(?:{ways})" + ("?" if "" in rests else "")
