"""The spellings of a set of numbers, as an automaton.

Validators read numbers as floats. So that a number beside an exclusive bound or without a whole
part stays what it is, numbers with such bounds have at most `EXACT_DIGITS` digits.
"""

import functools
import itertools
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from falsework.grammars.expressions import (
    Expression,
    Fragment,
    choice,
    embedded,
    literal,
    regex,
)
from falsework.grammars.json_values import INTEGER, NUMBER
from falsework.grammars.numbers import Numbers, spelled

EXACT_DIGITS = 15


WHOLE_DIGITS = 19


FRACTION_DIGITS = 18


REMAINDER_LIMIT = 4096


class NumberTooComplex(ValueError):
    """A multipleOf that needs too many remainders."""


def number_grammar(numbers: Numbers) -> Expression:
    """Say the numbers of a set; raise NumberTooComplex."""
    if numbers.values is not None:
        return choice([literal(spelled(one)) for one in sorted(numbers.values)])
    if numbers in _PLAIN:
        return regex(_PLAIN[numbers])
    return embedded(_fragment(numbers))


def check_step(numbers: Numbers) -> None:
    """Raise NumberTooComplex where a multipleOf has too many remainders."""
    _Spelling(numbers)


_PLAIN = {Numbers(): NUMBER, Numbers(kind="whole"): INTEGER}


class _Place(NamedTuple):
    """How far a number is spelled.

    `part`: "start", "sign", "zero" (a lone 0), "whole", "point" or "fraction";
    `digits`: of the part (in a fraction: of the whole number); `compared`: -1, 0 or 1 for each
    bound; `remainder` of the digits by the step.
    """

    part: str = "start"
    negative: bool = False
    digits: int = 0
    places: int = 0
    compared: tuple[int, ...] = ()
    remainder: int = 0
    broken: bool = False


class _Spelling:
    """The automaton of the spellings of a set of numbers, state by state."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.bounds = sorted(
            {abs(b) for b in (numbers.low, numbers.high) if b is not None}
            | {abs(one) for one in numbers.excluded}
        )
        self.split = [_decimal(bound) for bound in self.bounds]
        self.scale = 0
        self.modulus = 1
        if numbers.step is not None:
            while (numbers.step * 10**self.scale).denominator != 1:
                self.scale += 1
                if self.scale > FRACTION_DIGITS:
                    raise NumberTooComplex
            self.modulus = int(numbers.step * 10**self.scale)
            if self.modulus > REMAINDER_LIMIT:
                raise NumberTooComplex
        self.tight = bool(numbers.excluded) or numbers.low_exclusive or numbers.high_exclusive
        self.excluded = [self._bound(one) for one in numbers.excluded]
        self.low = None if numbers.low is None else self._bound(numbers.low)
        self.high = None if numbers.high is None else self._bound(numbers.high)

    def _bound(self, bound: Fraction) -> tuple[int, int]:
        """Return where a bound's size stands in `bounds`, and its sign."""
        return self.bounds.index(abs(bound)), (bound > 0) - (bound < 0)

    def start(self) -> _Place:
        return _Place(compared=(0,) * len(self.bounds))

    def ways(self, at: _Place) -> Iterator[tuple[str, str, _Place]]:
        """Yield the lowest and the highest character of each way on, and the place behind."""
        part = at.part
        if part == "start":
            yield "-", "-", at._replace(part="sign", negative=True)
        if part in {"start", "sign"}:
            yield "0", "0", self._whole(at._replace(part="zero"), 0)
            for low, high in self._digits(at, 1, whole=True):
                yield str(low), str(high), self._whole(at._replace(part="whole"), low)
        elif part == "whole" and at.digits < self._most_whole():
            for low, high in self._digits(at, 0, whole=True):
                yield str(low), str(high), self._whole(at, low)
        if part in {"zero", "whole"} and self._may_break(at):
            yield ".", ".", self._pointed(at)
        if part in {"point", "fraction"} and at.places < self._most_places(at):
            for low, high in self._digits(at, 0, whole=False):
                yield str(low), str(high), self._fraction(at, low)

    def _digits(self, at: _Place, first: int, *, whole: bool) -> Iterator[tuple[int, int]]:
        """Yield ranges of digits that lead to one place."""
        cuts = {first, 10}
        if self.modulus > 1:
            cuts |= set(range(first, 10))
        if self.numbers.kind == "broken" and not at.broken and not whole:
            cuts.add(1)
        for (before, behind), compared in zip(self.split, at.compared, strict=True):
            digits, index = (before, at.digits) if whole else (behind, at.places)
            theirs = int(digits[index]) if index < len(digits) else 0
            if not compared:
                cuts |= {theirs, theirs + 1}
        bounds = sorted(cut for cut in cuts if cut >= first)
        yield from ((low, high - 1) for low, high in itertools.pairwise(bounds))

    def ends(self, at: _Place) -> bool:  # noqa: PLR0911 - one for each bound
        if at.part not in {"zero", "whole", "fraction"}:
            return False
        numbers = self.numbers
        if numbers.kind == "broken" and not at.broken:
            return False
        if at.remainder * 10 ** max(0, self.scale - at.places) % self.modulus:
            return False
        if not self.bounds:
            return True
        signs = self._signs(at)
        if any(_order(one, at, signs) == 0 for one in self.excluded):
            return False
        if self.low is not None:
            order = _order(self.low, at, signs)
            if order < 0 or (order == 0 and numbers.low_exclusive):
                return False
        if self.high is not None:
            order = _order(self.high, at, signs)
            if order > 0 or (order == 0 and numbers.high_exclusive):
                return False
        return True

    def _signs(self, at: _Place) -> list[int]:
        """Compare the size with the bounds' sizes, nothing further being said."""
        found = []
        for (whole, fraction), compared in zip(self.split, at.compared, strict=True):
            if at.places == 0:
                found.append(_ended(whole, fraction, at, compared))
            elif compared == 0 and any(c != "0" for c in fraction[at.places :]):
                found.append(-1)
            else:
                found.append(compared)
        return found

    def _whole(self, at: _Place, digit: int) -> _Place:
        compared = []
        for (whole, _), before in zip(self.split, at.compared, strict=True):
            theirs = int(whole[at.digits]) if at.digits < len(whole) else 0
            compared.append(before or (digit > theirs) - (digit < theirs))
        remainder = (at.remainder * 10 + digit) % self.modulus
        return at._replace(digits=at.digits + 1, compared=tuple(compared), remainder=remainder)

    def _pointed(self, at: _Place) -> _Place:
        compared = tuple(
            _whole_sign(whole, at.digits, before)
            for (whole, _), before in zip(self.split, at.compared, strict=True)
        )
        # Where the digits behind the point don't hang on those before it, these are forgotten.
        digits = at.digits if self.tight or self.numbers.kind == "broken" else 0
        if self.numbers.step is not None:
            digits = at.digits
        return at._replace(part="point", compared=compared, digits=digits)

    def _fraction(self, at: _Place, digit: int) -> _Place:
        compared = []
        for (_, fraction), before in zip(self.split, at.compared, strict=True):
            theirs = int(fraction[at.places]) if at.places < len(fraction) else 0
            compared.append(before or (digit > theirs) - (digit < theirs))
        return at._replace(
            part="fraction",
            places=at.places + 1,
            compared=tuple(compared),
            remainder=(at.remainder * 10 + digit) % self.modulus,
            broken=self.numbers.kind == "broken" and (at.broken or digit > 0),
        )

    def _may_break(self, at: _Place) -> bool:
        return self.numbers.kind != "whole" and self._most_places(at) > 0

    def _most_whole(self) -> int:
        narrow = self.numbers.kind == "broken" or (self.tight and self.numbers.kind == "any")
        return EXACT_DIGITS if narrow else WHOLE_DIGITS

    def _most_places(self, at: _Place) -> int:
        if self.numbers.step is not None:
            return min(self.scale, max(0, EXACT_DIGITS - at.digits))
        if self.tight or self.numbers.kind == "broken":
            return max(0, EXACT_DIGITS - at.digits)
        return FRACTION_DIGITS


def _order(bound: tuple[int, int], at: _Place, signs: list[int]) -> int:
    """Compare the number with a bound: -1, 0, 1; `signs` compare its size with those of bounds."""
    index, sign = bound
    size = signs[index]
    if sign == 0:
        return 0 if size == 0 else -1 if at.negative else 1
    if (sign < 0) != at.negative:
        return 1 if sign < 0 else -1
    return -size if at.negative else size


def _decimal(number: Fraction) -> tuple[str, str]:
    """Return the digits before and behind the point."""
    spelled_out = format(Decimal(number.numerator) / Decimal(number.denominator), "f")
    whole, _, fraction = spelled_out.partition(".")
    return whole, fraction


def _whole_sign(whole: str, digits: int, compared: int) -> int:
    if digits != len(whole):
        return 1 if digits > len(whole) else -1
    return compared


def _ended(whole: str, fraction: str, at: _Place, compared: int) -> int:
    sign = _whole_sign(whole, at.digits, compared)
    return -1 if sign == 0 and fraction.strip("0") else sign


@functools.lru_cache(maxsize=256)
def _fragment(numbers: Numbers) -> Fragment:
    spelling = _Spelling(numbers)
    start = spelling.start()
    known = {start: 0}
    queue = [start]
    edges: list[tuple[int, int, int, int]] = []
    for place in queue:
        for low, high, target in spelling.ways(place):
            if target not in known:
                known[target] = len(known)
                queue.append(target)
            edges.append((known[place], ord(low), ord(high), known[target]))
    ends = [known[place] for place in queue if spelling.ends(place)]
    return Fragment(len(known), edges, ends)
