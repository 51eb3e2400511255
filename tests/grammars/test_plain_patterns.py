"""Patterns without look-aheads and word boundaries mean what `re` means by them."""

import random
import re

import pytest

from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import TooManyCharacterStates
from falsework.grammars.pattern_dfa import pattern_dfa

PATTERNS = [
    "", "^$", "x*", "^a+b?$", "[0-9]{3}", "^(x|y)*z$", "a.*b", "a|b$", "^a|b$", "^(^a|b)*$",
    "(a|b)*a(a|b){5}$", "$a", "a$b", "(a$|b)x?", "[^x]{2,5}$", "(?:^|,)a{2}(?:$|,)", "a{0}",
    "(|a)$", "^.{3}$", "é+|[ü-ÿ]$", "^[\\d,]+$", "(?:a|ab)(?:c|bcd)?$",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_found_where_re_finds_it(pattern: str) -> None:
    automaton = pattern_dfa(pattern, Budget())
    judge = re.compile(pattern.replace("$", r"\Z"))
    draw = random.Random(pattern)
    texts = ["".join(draw.choices("aaabbb111,xzcé", k=draw.randrange(10))) for _ in range(800)]

    assert [one for one in texts if automaton.accepts(one) != bool(judge.search(one))] == []
    assert any(map(judge.search, texts)) is (pattern not in {"$a", "a$b"})


@pytest.mark.parametrize("pattern", ["(a|b)*a(a|b){24}$", "^(a{1,99}){1,99}$"])
def test_a_pattern_whose_automaton_is_too_large_ends_soon(pattern: str) -> None:
    with pytest.raises(TooManyCharacterStates):
        pattern_dfa(pattern, Budget())
