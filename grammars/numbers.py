"""Sets of numbers between bounds, and their spellings: decimal arithmetic, no floats.

Validators read numbers as floats. So that a number beside an exclusive bound or without a whole
part stays what it is, numbers with such bounds have at most `EXACT_DIGITS` digits.
"""

import functools
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from falsework.grammars.expressions import Expression, Fragment, choice, literal, regex
from falsework.grammars.json_values import INTEGER, NUMBER

EXACT_DIGITS = 15
WHOLE_DIGITS = 19
FRACTION_DIGITS = 18
REMAINDER_LIMIT = 4096

Kind = Literal["any", "whole", "broken"]
"""All numbers, those without and those with a fractional part."""


class NumberTooComplex(ValueError):
    """A multipleOf that needs too many remainders."""


@dataclass(frozen=True)
class Numbers:
    """Numbers from `low` to `high` (None: unbounded), multiples of `step`; or only `values`."""

    low: Fraction | None = None
    high: Fraction | None = None
    low_exclusive: bool = False
    high_exclusive: bool = False
    step: Fraction | None = None
    kind: Kind = "any"
    values: frozenset[Fraction] | None = None
    excluded: frozenset[Fraction] = frozenset()

    def __contains__(self, number: Fraction) -> bool:
        """Tell whether a number is in the set."""
        if self.low is not None and (number < self.low or self._at_low(number)):
            return False
        if self.high is not None and (number > self.high or self._at_high(number)):
            return False
        if self.step is not None and (number / self.step).denominator != 1:
            return False
        if self.kind != "any" and (number.denominator == 1) != (self.kind == "whole"):
            return False
        return number not in self.excluded and (self.values is None or number in self.values)

    def _at_low(self, number: Fraction) -> bool:
        return self.low_exclusive and number == self.low

    def _at_high(self, number: Fraction) -> bool:
        return self.high_exclusive and number == self.high

    def intersection(self, other: "Numbers") -> "Numbers | None":
        """Return what both sets have; None: nothing."""
        kinds = {self.kind, other.kind} - {"any"}
        if len(kinds) == 2:  # noqa: PLR2004 - whole and broken
            return None
        values = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            values = self.values & other.values
        low, low_exclusive = _tighter(
            (self.low, self.low_exclusive), (other.low, other.low_exclusive), 1
        )
        high, high_exclusive = _tighter(
            (self.high, self.high_exclusive), (other.high, other.high_exclusive), -1
        )
        kind: Kind = kinds.pop() if kinds else "any"
        both = Numbers(low, high, low_exclusive, high_exclusive, _common(self.step, other.step),
                       kind, values, self.excluded | other.excluded)  # fmt: skip
        return both.simplified()

    def simplified(self) -> "Numbers | None":
        """Return the set with whole bounds where it can be; None: it is known to be empty."""
        if self.values is not None:
            left = frozenset(one for one in self.values if one in self)
            return Numbers(values=left) if left else None
        one = self
        if self.kind == "whole":
            low, high = self.low, self.high
            if low is not None:
                low = Fraction(math.floor(low) + 1 if self.low_exclusive else math.ceil(low))
            if high is not None:
                high = Fraction(math.ceil(high) - 1 if self.high_exclusive else math.floor(high))
            one = replace(self, low=low, high=high, low_exclusive=False, high_exclusive=False)
        if one.low is not None and one.high is not None:
            if one.low > one.high:
                return None
            if one.low == one.high:
                return replace(one, values=frozenset({one.low})).simplified()
        return one


def _tighter(
    one: tuple[Fraction | None, bool], other: tuple[Fraction | None, bool], sign: int
) -> tuple[Fraction | None, bool]:
    if one[0] is None or other[0] is None:
        return other if one[0] is None else one
    if one[0] == other[0]:
        return one[0], one[1] or other[1]
    return max(one, other, key=lambda bound: sign * (bound[0] or 0))


def _common(one: Fraction | None, other: Fraction | None) -> Fraction | None:
    """Return the least common multiple."""
    if one is None or other is None:
        return other if one is None else one
    denominator = math.lcm(one.denominator, other.denominator)
    return Fraction(math.lcm(int(one * denominator), int(other * denominator)), denominator)


def exact(number: float | Decimal) -> Fraction:
    """Return a JSON number as it was written (a float's shortest spelling)."""
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def spelled(number: Fraction) -> str:
    """Return the one spelling of a listed number."""
    if number.denominator == 1 and abs(number) < 10**21:
        return str(number.numerator)
    return json.dumps(float(number))


def number_grammar(numbers: Numbers) -> Expression:
    """Say the numbers of a set; raise NumberTooComplex."""
    if numbers.values is not None:
        return choice([literal(spelled(one)) for one in sorted(numbers.values)])
    if numbers in _PLAIN:
        return regex(_PLAIN[numbers])
    return _embedded(_fragment(numbers))


def _embedded(leaf: Fragment) -> Expression:
    return lambda net, start: net.embed(start, leaf)


def check_step(numbers: Numbers) -> None:
    """Raise NumberTooComplex where a multipleOf has too many remainders."""
    _Spelling(numbers)


_PLAIN = {Numbers(): NUMBER, Numbers(kind="whole"): INTEGER}


@dataclass(frozen=True)
class _Place:
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
        self.bounds = sorted({abs(b) for b in (numbers.low, numbers.high) if b is not None}
                             | {abs(one) for one in numbers.excluded})  # fmt: skip
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

    def start(self) -> _Place:
        return _Place(compared=(0,) * len(self.bounds))

    def ways(self, at: _Place) -> Iterator[tuple[str, str, _Place]]:
        """Yield the lowest and the highest character of each way on, and the place behind."""
        part = at.part
        if part == "start":
            yield "-", "-", replace(at, part="sign", negative=True)
        if part in {"start", "sign"}:
            yield "0", "0", self._whole(replace(at, part="zero"), 0)
            for low, high in self._digits(at, 1, whole=True):
                yield str(low), str(high), self._whole(replace(at, part="whole"), low)
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
        signs = dict(zip(self.bounds, self._signs(at), strict=True))
        if any(self._order(one, at, signs) == 0 for one in numbers.excluded):
            return False
        low, high = numbers.low, numbers.high
        if low is not None:
            order = self._order(low, at, signs)
            if order < 0 or (order == 0 and numbers.low_exclusive):
                return False
        if high is not None:
            order = self._order(high, at, signs)
            if order > 0 or (order == 0 and numbers.high_exclusive):
                return False
        return True

    def _order(self, bound: Fraction, at: _Place, signs: dict[Fraction, int]) -> int:
        """Compare the number with a bound: -1, 0, 1."""
        size = signs[abs(bound)]
        if bound == 0:
            return 0 if size == 0 else -1 if at.negative else 1
        if (bound < 0) != at.negative:
            return 1 if bound < 0 else -1
        return -size if at.negative else size

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
        return replace(at, digits=at.digits + 1, compared=tuple(compared), remainder=remainder)

    def _pointed(self, at: _Place) -> _Place:
        compared = tuple(
            _whole_sign(whole, at.digits, before)
            for (whole, _), before in zip(self.split, at.compared, strict=True)
        )
        # Where the digits behind the point don't hang on those before it, these are forgotten.
        digits = at.digits if self.tight or self.numbers.kind == "broken" else 0
        if self.numbers.step is not None:
            digits = at.digits
        return replace(at, part="point", compared=compared, digits=digits)

    def _fraction(self, at: _Place, digit: int) -> _Place:
        compared = []
        for (_, fraction), before in zip(self.split, at.compared, strict=True):
            theirs = int(fraction[at.places]) if at.places < len(fraction) else 0
            compared.append(before or (digit > theirs) - (digit < theirs))
        return replace(
            at, part="fraction", places=at.places + 1, compared=tuple(compared),
            remainder=(at.remainder * 10 + digit) % self.modulus, broken=self.numbers.kind == "broken" and (at.broken or digit > 0),
        )  # fmt: skip

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
