"""Following a reply under llguidance, and barring texts: what the scheduler asks of a matcher."""

import json
from pathlib import Path

import pytest
from support.real_tokenizers import Real, tokenizer

from falsework.grammars.dfa import START, compile_dfa
from falsework.grammars.free_text import text_until_marker
from falsework.grammars.llguidance_grammar import UnsupportedGrammar, make_tokenizer
from falsework.grammars.masks import tokens_in_mask
from falsework.server.engines.barred_matcher import BarredMatcher, NoWayOn
from falsework.server.engines.base import ThinkingBudget
from falsework.server.engines.llguidance_matcher import LlguidanceGrammar, LlguidanceMatcher

TREE = 'start: "tree(" (NUMBER | start) ")"\nNUMBER: /[0-9]+/'


@pytest.fixture(scope="module")
def real(smollm2: Path) -> Real:
    return tokenizer("smollm2", smollm2)


def grammar(real: Real, lark: str) -> LlguidanceGrammar:
    vocabulary = real.vocabulary
    made = make_tokenizer(vocabulary.tokens, vocabulary.ends, real.encode)
    text = json.dumps({"grammars": [{"lark_grammar": lark}]})
    return LlguidanceGrammar(text, made, vocabulary, real.width, real.encode)


def sayable(real: Real, matcher: LlguidanceMatcher | BarredMatcher) -> set[bytes]:
    return {real.vocabulary.tokens[one] or b"" for one in tokens_in_mask(matcher.token_bitmask())}


def say(real: Real, matcher: LlguidanceMatcher | BarredMatcher, text: str) -> bool:
    return all(matcher.accept_token(token) for token in real.encode(text))


def test_a_reply_is_followed_to_its_end_and_back(real: Real) -> None:
    matcher = LlguidanceMatcher(grammar(real, TREE))
    first = matcher.token_bitmask().tolist()

    assert say(real, matcher, "tree(tree(12))")
    assert matcher.forced_tokens == tuple(real.vocabulary.ends[:1])
    assert matcher.accept_token(real.vocabulary.ends[0])
    assert matcher.is_terminated

    matcher.reset()

    assert not matcher.is_terminated
    assert matcher.token_bitmask().tolist() == first


def test_what_can_not_be_said_changes_nothing(real: Real) -> None:
    matcher = LlguidanceMatcher(grammar(real, TREE))
    assert say(real, matcher, "tree(1")
    before = sayable(real, matcher)

    refused = [matcher.accept_token(token) for token in (*real.encode("x"), *real.vocabulary.ends)]

    assert not any(refused)
    assert sayable(real, matcher) == before


def test_a_mask_admits_what_can_be_said_and_nothing_else(real: Real) -> None:
    matcher = LlguidanceMatcher(grammar(real, 'start: "yes" | /[0-9]{2}/'))
    admitted = sayable(real, matcher)

    said = set()
    for number, token in enumerate(real.vocabulary.tokens):
        if token and number not in real.vocabulary.ends and matcher.accept_token(number):
            said.add(token)
            matcher.rollback(1)

    assert admitted == said
    assert {b"yes", b"7"} <= said


def test_it_begins_behind_a_prefix(real: Real) -> None:
    prefix = real.encode("tree(")

    behind = LlguidanceMatcher(grammar(real, TREE), prefix=prefix)

    assert say(real, behind, "4)")
    with pytest.raises(ValueError, match="can't say"):
        LlguidanceMatcher(grammar(real, TREE), prefix=real.encode("bush("))


def test_a_think_block_is_closed_when_its_budget_is_spent(real: Real) -> None:
    thought = grammar(real, 'start: block "yes"\nblock[lazy]: /(?s:.*)<\\/think>/')
    block = compile_dfa(text_until_marker("</think>"))
    close = tuple(real.encode("</think>"))
    matcher = LlguidanceMatcher(thought, ThinkingBudget(2, START, close), block)

    assert say(real, matcher, "Well")
    assert matcher.forced_tokens == ()
    assert say(real, matcher, " then")

    assert matcher.forced_tokens == close


def test_what_is_barred_is_not_said_whatever_its_tokens(real: Real) -> None:
    numbers = grammar(real, 'start: "number " /[0-9]{1,3}/')
    matcher = BarredMatcher(LlguidanceMatcher(numbers), [b"number 12"], real.vocabulary)

    assert say(real, matcher, "number 1")

    assert not say(real, matcher, "2")
    assert b"2" not in sayable(real, matcher)
    assert b"3" in sayable(real, matcher)


def test_a_reply_whose_every_way_is_barred_has_no_way_on(real: Real) -> None:
    matcher = BarredMatcher(
        LlguidanceMatcher(grammar(real, 'start: "a" | "b"')), [b"a", b"b"], real.vocabulary
    )

    with pytest.raises(NoWayOn):
        matcher.token_bitmask()


@pytest.mark.parametrize("lark", ["start: nowhere", "start: /(?=a)/", "begin: 'a'", ""])
def test_a_grammar_that_is_none_is_refused(real: Real, lark: str) -> None:
    with pytest.raises(UnsupportedGrammar):
        grammar(real, lark)
