r"""Sets of Unicode code points as sorted ranges, and the classes of ECMA 262 regexes (\d, \w, \s).

Validators read those classes differently outside ASCII (Python's `\d` has all decimal digits,
ECMA's only ten). A `lower` set has what every reading has, an `upper` set what any of them has.
"""

import functools
import unicodedata
from collections.abc import Callable, Iterable

Ranges = tuple[tuple[int, int], ...]

LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


def ranges(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Sort and join ranges (lowest, highest)."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(pairs):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def complement(inside: Ranges) -> Ranges:
    """Return all code points that text can hold and the set has not."""
    outside, following = [], 0
    for low, high in ranges((*inside, _SURROGATES)):
        if low > following:
            outside.append((following, low - 1))
        following = high + 1
    if following <= LAST:
        outside.append((following, LAST))
    return tuple(outside)


def intersection(one: Ranges, other: Ranges) -> Ranges:
    """Return what both sets have."""
    return complement(ranges((*complement(one), *complement(other))))


def characters(text: str) -> Ranges:
    """Return the set of the characters of a text."""
    return ranges((ord(one), ord(one)) for one in text)


ANY: Ranges = complement(())
_DIGIT = ((0x30, 0x39),)
_WORD = ranges([(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)])
_ZS = characters(
    "\u0020\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u202f\u205f\u3000"
)
_SPACE = ranges([*_ZS, (0x09, 0x0D), (0x2028, 0x2029)])
_LINE_ENDS = characters("\n\r\u2028\u2029")


def _where(holds: Callable[[str], bool], end: int) -> Ranges:
    return ranges((code, code) for code in range(end) if holds(chr(code)))


@functools.cache
def _unicode_digits() -> Ranges:
    return _where(str.isdecimal, 0x20000)  # the last of them is U+1FBF9


# Beyond ASCII only these are certainly no part of a word, in any version of Unicode.
_NO_WORD = ranges(
    [
        *_ZS,
        (0x80, 0xA9),
        (0xAB, 0xB1),
        (0xB6, 0xB8),
        (0xBB, 0xBB),
        (0xBF, 0xBF),
        (0x2010, 0x203E),
        (0x3001, 0x3004),
        (0x3008, 0x3020),
    ]
)
_MAYBE_WORD = ranges([*_WORD, *intersection(complement(_NO_WORD), ((0x80, LAST),))])


def shorthand(letter: str, *, upper: bool) -> Ranges:
    r"""Return the set of \d, \D, \w, \W, \s or \S."""
    if letter.isupper():
        return complement(shorthand(letter.lower(), upper=not upper))
    if letter == "d":
        return _unicode_digits() if upper else _DIGIT
    if letter == "w":
        return _MAYBE_WORD if upper else _WORD
    extra = ((0x1C, 0x1F), (0x85, 0x85), (0xFEFF, 0xFEFF))
    return ranges([*_SPACE, *extra]) if upper else _SPACE


def dot(*, upper: bool) -> Ranges:
    """Return what `.` stands for."""
    return complement(characters("\n") if upper else _LINE_ENDS)


def word_class(code: int) -> bool | None:
    r"""Tell whether \b takes a character for one of a word; None: readings differ."""
    if code < 0x80:  # noqa: PLR2004 - ASCII
        return any(low <= code <= high for low, high in _WORD)
    return None


@functools.cache
def category(name: str) -> Ranges | None:
    r"""Return the set of \p{name} for a general category (L, Lu, …), None for other properties."""
    long = {
        "Letter": "L",
        "Uppercase_Letter": "Lu",
        "Lowercase_Letter": "Ll",
        "Number": "N",
        "Decimal_Number": "Nd",
        "Punctuation": "P",
        "Symbol": "S",
        "Separator": "Z",
        "Mark": "M",
    }
    short = long.get(name, name)
    known = {unicodedata.category(chr(code)) for code in range(0x3000)} | {"Co", "Cn"}
    if short not in known | {one[0] for one in known}:
        return None
    # Categories of late Unicode versions differ between libraries: nothing behind U+20000.
    return _where(lambda one: unicodedata.category(one).startswith(short), 0x20000)
