"""Sets of numbers between bounds, and their spellings: decimal arithmetic, no floats.

Validators read numbers as floats. So that a number beside an exclusive bound or without a whole
part stays what it is, numbers with such bounds have at most `EXACT_DIGITS` digits.
"""

import json
import math
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Literal

Kind = Literal["any", "whole", "broken"]
"""All numbers, those without and those with a fractional part."""


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
        both = Numbers(
            low,
            high,
            low_exclusive,
            high_exclusive,
            _common(self.step, other.step),
            kind,
            values,
            self.excluded | other.excluded,
        )
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
