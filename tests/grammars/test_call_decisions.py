"""Where calls and no calls are compared: at a reply's beginning, and behind each call."""

import pytest
from support.family_replies import automaton_of, form_of, thought

from falsework.grammars import CallDecision
from falsework.grammars.call_decisions import call_decisions
from falsework.grammars.dfa import DFA
from falsework.grammars.events import Call
from falsework.grammars.masks import tokens_in_mask
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.tool_choice import ToolChoice
from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.dialects import DIALECTS, Dialect, with_reasoning
from falsework.server.engines.matcher import CompiledGrammar, GrammarMatcher

# "[" and "}" may end arguments as well as calls, and so may ", " and "]" inside them.
FIRST = Call("get_weather", '{"city": "a], [{b}", "detail": {"wind": true, "levels": [1, 2]}}')
SECOND = Call("get", "{}")


JOINED = (
    ", ",
    "}, ",
    "},",
    "}}",
    '"}',
    '"}}',
    "]}",
    "}]",
    ">\n",
    "}\n",
    "; ",
    "};",
    ");",
    "), ",
    ")]",
)
"""Tokens that go on across the end of a call, as the vocabularies of many models have them."""


class Marked:
    """A small vocabulary with a token for each marker of a dialect, as the family's own has."""

    def __init__(self, dialect: Dialect) -> None:
        marks = {one.strip() for one in (*dialect.markers, *dialect.needs)}
        special = [one for one in marks if one[:1] in "<[" and one[-1:] in ">]" and len(one) > 2]
        joined = [each for one in (*JOINED, *special) for each in (one, one + ",", one + "\n")]
        tokens = [bytes([byte]) for byte in range(256)] + [one.encode() for one in joined]
        self.vocabulary = Vocabulary([*dict.fromkeys(tokens), None], [len(dict.fromkeys(tokens))])

    def encode(self, text: str) -> list[int]:
        rest, said = text.encode(), []
        while rest:
            fitting = [n for n, t in enumerate(self.vocabulary.tokens) if t and rest.startswith(t)]
            said.append(max(fitting, key=lambda n: len(self.vocabulary.tokens[n] or b"")))
            rest = rest[len(self.vocabulary.tokens[said[-1]] or b"") :]
        return said


def matcher_of(form: ReplyFormat, marked: Marked) -> tuple[GrammarMatcher, DFA]:
    automaton = automaton_of(form)
    decisions = call_decisions(form, automaton, marked.vocabulary, marked.encode)
    size = (len(marked.vocabulary.tokens) + 31) // 32
    compiled = CompiledGrammar(automaton, marked.vocabulary, size, marked.encode, decisions)
    return GrammarMatcher(compiled, decisions=decisions), automaton


def walked(matcher: GrammarMatcher, text: str, vocabulary: Vocabulary) -> list[tuple[str, object]]:
    """Say a text, each token the longest that may be said; return where a decision was made."""
    rest, made = text.encode(), []
    while rest:
        if matcher.decision:
            made.append((rest.decode(), matcher.decision))
        allowed = tokens_in_mask(matcher.token_bitmask())
        fitting = [t for t in allowed if rest.startswith(vocabulary.tokens[t] or b"\xff")]
        assert fitting, f"nothing can be said before {rest!r}"
        longest = max(fitting, key=lambda token: len(vocabulary.tokens[token] or b""))
        assert matcher.accept_token(longest)
        rest = rest[len(vocabulary.tokens[longest] or b"") :]
    if matcher.decision:
        made.append(("", matcher.decision))
    return made


PARALLEL = [one for one in DIALECTS.values() if one.markup.parallel]
THINKING = [with_reasoning(one) for one in PARALLEL if one.reasoning]


@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize(
    "dialect", [*PARALLEL, *THINKING], ids=lambda one: one.name + ("-think" if one.think else "")
)
def test_behind_each_call_it_is_decided_whether_another_follows(
    dialect: Dialect, mode: str
) -> None:
    marked = Marked(dialect)
    form = form_of(dialect, mode)
    matcher, automaton = matcher_of(form, marked)
    text = thought(form) + dialect.markup.render([FIRST, SECOND])
    assert automaton.accepts(text)

    made = walked(matcher, text, marked.vocabulary)

    markup = dialect.markup
    one, two = (markup.render(calls) for calls in ([FIRST], [FIRST, SECOND]))
    behind = [two[len(one) - len(markup.closing) :], markup.closing]
    assert [rest for rest, decision in made if decision.kind == "another"] == behind  # type: ignore[attr-defined]


@pytest.mark.parametrize("dialect", [one for one in DIALECTS.values() if one.name != "harmony"])
def test_a_reply_that_may_call_begins_with_a_decision(dialect: Dialect) -> None:
    marked = Marked(dialect)
    form = form_of(dialect)
    matcher, _ = matcher_of(form, marked)
    vocabulary = marked.vocabulary

    made = matcher.decision

    assert isinstance(made, CallDecision)
    assert made.kind == "first"
    usual = marked.encode(dialect.markup.prefix)[0]
    assert usual in made.calls or vocabulary.tokens[usual] == b"\n", "the family's own spelling"
    allowed = {*tokens_in_mask(matcher.token_bitmask())}
    text = allowed - {*made.calls, *made.unclear}
    assert any((vocabulary.tokens[token] or b"").isalpha() for token in text)


@pytest.mark.parametrize(
    ("choice", "kinds"),
    [
        (ToolChoice("auto"), {"first", "another"}),
        (ToolChoice("auto", parallel=False), {"first"}),
        (ToolChoice("required"), {"another"}),
        (ToolChoice("required", parallel=False), set()),
        (ToolChoice("none"), set()),
    ],
)
def test_only_what_can_go_two_ways_is_decided(choice: ToolChoice, kinds: set[str]) -> None:
    marked = Marked(DIALECTS["hermes"])
    form = form_of(DIALECTS["hermes"], choice.mode, parallel=choice.parallel)

    made = call_decisions(form, automaton_of(form), marked.vocabulary, marked.encode)

    assert {one.kind for one in made} == kinds


def test_a_matcher_behind_a_reply_s_beginning_goes_on_across_its_calls() -> None:
    dialect = DIALECTS["scaffold"]
    marked = Marked(dialect)
    form = form_of(dialect, "required")
    automaton = automaton_of(form)
    decisions = call_decisions(form, automaton, marked.vocabulary, marked.encode)
    compiled = CompiledGrammar(automaton, marked.vocabulary, 2000, marked.encode, decisions)
    said = dialect.markup.render([SECOND, SECOND])

    matcher = GrammarMatcher(compiled, None, marked.encode(said), decisions)

    assert matcher.decision is not None
    assert marked.vocabulary.ends[0] in tokens_in_mask(matcher.token_bitmask())
