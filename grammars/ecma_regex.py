r"""Regular expressions of ECMA 262, as `pattern` has them, parsed to a tree.

Read with the `u` flag's characters (code points) and Annex B's leniency (`\-`, a lone `{`).
https://tc39.es/ecma262/#sec-patterns
"""

from typing import NoReturn

from falsework.grammars import code_points
from falsework.grammars.code_points import Ranges
from falsework.grammars.regex_tree import (
    Alternatives,
    Assertion,
    Characters,
    InvalidPattern,
    LookAhead,
    Pattern,
    Repeat,
    Sequence,
    UnsupportedPattern,
)

NESTING_LIMIT = 60


COUNT_LIMIT = 100_000


_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}


_QUANTIFIERS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def parse(pattern: str, *, upper: bool = False) -> Pattern:
    """Parse a pattern; `upper`: with every text that any reading of it matches.

    Raise UnsupportedPattern or InvalidPattern.
    """
    ignore_case = pattern.startswith("(?i)")  # not ECMA's, but both Python's and Rust's
    if ignore_case and upper:
        msg = "flags"
        raise UnsupportedPattern(msg)
    parser = _Parser(pattern[4:] if ignore_case else pattern, upper, ignore_case)
    tree = parser.alternatives()
    if parser.more():
        parser.fail("an unmatched )")
    return tree


class _Parser:
    def __init__(self, text: str, upper: bool, ignore_case: bool) -> None:
        self._text = text
        self._at = 0
        self._upper = upper
        self._ignore_case = ignore_case
        self._depth = 0

    def more(self) -> bool:
        return self._at < len(self._text)

    def fail(self, what: str) -> NoReturn:
        msg = f"{what} at character {self._at}"
        raise InvalidPattern(msg)

    def alternatives(self) -> Pattern:
        self._depth += 1
        if self._depth > NESTING_LIMIT:
            msg = "groups nested too deep"
            raise UnsupportedPattern(msg)
        parts = [self._sequence()]
        while self._taken("|"):
            parts.append(self._sequence())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Alternatives(tuple(parts))

    def _sequence(self) -> Pattern:
        parts: list[Pattern] = []
        while self.more() and self._text[self._at] not in "|)":
            parts.append(self._quantified(self._term()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _quantified(self, part: Pattern) -> Pattern:
        counts = self._counts()
        if counts is None:
            return part
        self._taken("?")  # lazy: the same texts
        if self._counts() is not None or self._taken("+"):
            self.fail("nothing to repeat")
        if isinstance(part, Assertion):
            msg = "a repeated assertion"
            raise UnsupportedPattern(msg)
        if counts[1] is not None and counts[1] < counts[0]:
            self.fail("counts out of order")
        return Repeat(part, *counts)

    def _counts(self) -> tuple[int, int | None] | None:
        if not self.more():
            return None
        here = self._text[self._at]
        if here in _QUANTIFIERS:
            self._at += 1
            return _QUANTIFIERS[here]
        end = self._text.find("}", self._at)
        if here != "{" or end < 0:
            return None
        low, comma, high = self._text[self._at + 1 : end].partition(",")
        if not _is_number(low) or (high and not _is_number(high)):
            return None
        self._at = end + 1
        counts = (int(low), int(low) if not comma else int(high) if high else None)
        if max(counts[0], counts[1] or 0) > COUNT_LIMIT:
            msg = "a count too high"
            raise UnsupportedPattern(msg)
        return counts

    def _taken(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _term(self) -> Pattern:
        if self._taken("("):
            return self._group()
        if self._taken("["):
            return Characters(self._folded(self._class()))
        here = self._text[self._at]
        self._at += 1
        if here in "^$":
            return Assertion(here)
        if here == ".":
            return Characters(code_points.dot(upper=self._upper))
        if here == "\\":
            return self._escape()
        if here in "*+?":
            self.fail("nothing to repeat")
        return Characters(self._folded(code_points.characters(here)))

    def _group(self) -> Pattern:
        ahead = None
        if self._taken("?"):
            if self._taken("="):
                ahead = False
            elif self._taken("!"):
                ahead = True
                self._upper = not self._upper
            elif self._taken("<=") or self._taken("<!"):
                self._unsupported("look-behind")
            elif self._taken("<"):
                self._name()
            elif not self._taken(":"):
                self._unsupported("this kind of group")
        inside = self.alternatives()
        if not self._taken(")"):
            self.fail("an unmatched (")
        if ahead:
            self._upper = not self._upper
        return inside if ahead is None else LookAhead(inside, ahead)

    def _name(self) -> None:
        end = self._text.find(">", self._at)
        if end < 0 or not self._text[self._at : end].isidentifier():
            self.fail("a bad group name")
        self._at = end + 1

    def _unsupported(self, what: str) -> NoReturn:
        raise UnsupportedPattern(what)

    def _escape(self) -> Pattern:
        if not self.more():
            self.fail("a trailing backslash")
        here = self._text[self._at]
        if here in "bB":
            self._at += 1
            return Assertion(here)
        if here.isdigit() and here != "0":
            self._unsupported("backreferences")
        return Characters(self._folded(self._character_escape(self._upper)))

    def _character_escape(self, upper: bool) -> Ranges:
        """Read what stands behind a backslash and means one character."""
        here = self._text[self._at]
        self._at += 1
        if here in "dDwWsS":
            return code_points.shorthand(here, upper=upper)
        if here in "pP":
            return self._property(here == "P")
        if here in _CONTROLS:
            code = _CONTROLS[here]
        elif here == "c" and self._text[self._at : self._at + 1].isalpha():
            code = ord(self._text[self._at]) % 32
            self._at += 1
        elif here == "x":
            code = self._hex(2)
        elif here == "u":
            code = self._unicode()
        elif here.isalnum():
            self._unsupported(f"\\{here}")  # Annex B: the letter; Python and Rust: something else
        else:
            code = ord(here)
        return () if 0xD800 <= code <= 0xDFFF else ((code, code),)  # noqa: PLR2004 - surrogates

    def _hex(self, digits: int) -> int:
        spelled = self._text[self._at : self._at + digits]
        if len(spelled) < digits or not all(c in "0123456789abcdefABCDEF" for c in spelled):
            self.fail("a bad escape")
        self._at += digits
        return int(spelled, 16)

    def _unicode(self) -> int:
        if self._taken("{"):
            end = self._text.find("}", self._at)
            code = self._hex(max(1, end - self._at))
            self._at += 1
            if code > code_points.LAST:
                self.fail("a bad escape")
            return code
        code = self._hex(4)
        if 0xD800 <= code <= 0xDBFF and self._taken("\\u"):  # noqa: PLR2004 - a surrogate pair
            return 0x10000 + ((code - 0xD800) << 10) + (self._hex(4) - 0xDC00)
        return code

    def _property(self, negative: bool) -> Ranges:
        end = self._text.find("}", self._at)
        name = self._text[self._at + 1 : end] if self._taken_at("{") and end > 0 else ""
        inside = code_points.category(name.removeprefix("General_Category=").removeprefix("gc="))
        if inside is None or self._upper or negative:
            self._unsupported("this Unicode property")
        self._at = end + 1
        return inside

    def _taken_at(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _class(self) -> Ranges:
        negative = self._taken("^")
        upper = self._upper != negative
        inside: list[tuple[int, int]] = []
        while not self._taken("]"):
            low = self._class_atom(upper)
            if self._taken_at("-") and not self._taken_at("-]"):
                self._at += 1
                high = self._class_atom(upper)
                if _single(low) and _single(high):
                    if low[0][0] > high[0][0]:
                        self.fail("a range out of order")
                    inside.append((low[0][0], high[0][0]))
                    continue
                inside += [*high, (0x2D, 0x2D)]
            inside += low
        joined = code_points.ranges(inside)
        if self._ignore_case:
            joined = self._folded(joined)
        without_surrogates = code_points.intersection(joined, code_points.ANY)
        return code_points.complement(joined) if negative else without_surrogates

    def _class_atom(self, upper: bool) -> Ranges:
        if not self.more():
            self.fail("an unmatched [")
        here = self._text[self._at]
        self._at += 1
        if here == "[" and self._taken_at(":"):
            self._unsupported("POSIX classes")
        if here in "&-~[" and self._taken_at(here):
            self._unsupported("a doubled character in a class")  # Rust: an operator
        if here != "\\":
            return code_points.characters(here)
        if not self.more():
            self.fail("a trailing backslash")
        if self._taken("b"):
            return ((8, 8),)
        if self._text[self._at] in "B123456789":
            self._unsupported("this escape in a class")
        return self._character_escape(upper)

    def _folded(self, inside: Ranges) -> Ranges:
        if not self._ignore_case:
            return inside
        both = list(inside)
        for first, moved in ((0x41, 32), (0x61, -32)):
            letters = code_points.intersection(inside, ((first, first + 25),))
            both += [(low + moved, high + moved) for low, high in letters]
        return code_points.ranges(both)


def _single(inside: Ranges) -> bool:
    return len(inside) == 1 and inside[0][0] == inside[0][1]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
