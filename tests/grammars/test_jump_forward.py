"""Forced runs: what has only one way on is known, in the tokens that the model is used to."""

from pathlib import Path

import pytest
from support import real_tokenizers
from support.walker import Walker

from falsework.grammars import json_schema, literal, sequence
from falsework.grammars.dfa import DFA, START, compile_dfa
from falsework.grammars.events import Tool
from falsework.grammars.expressions import choice
from falsework.grammars.jump_forward import forced_bytes, forced_tokens
from falsework.grammars.masks import tokens_in_mask
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.reply_grammar import between_characters_state, reply_grammar
from falsework.grammars.tool_choice import ToolChoice
from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.dialects import DIALECTS, with_reasoning
from falsework.server.engines.base import ThinkingBudget
from falsework.server.engines.matcher import CompiledGrammar, GrammarMatcher
from falsework.server.engines.vllm.prompt_lookup import PromptLookupDrafter

BOOK = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "kind": {"enum": ["novel", "novella", "poem", "Zürich"]},
        "pages": {"type": "integer"},
    },
    "required": ["title", "kind", "pages"],
}
TOOLS = (Tool("find_book", "", BOOK), Tool("find_shelf", "", {}))

each_tokenizer = pytest.mark.parametrize("name", real_tokenizers.NAMES)


def compiled(mode: str = "required", *, only: str | None = None) -> DFA:
    chosen = None if only is None else frozenset({only})
    choice = ToolChoice(mode, only=chosen, parallel=False)  # type: ignore[arg-type]
    return compile_dfa(reply_grammar(ReplyFormat(DIALECTS["hermes"].markup, TOOLS, choice)))


def constrainer(automaton: DFA, tokenizer: real_tokenizers.Real) -> CompiledGrammar:
    return CompiledGrammar(automaton, tokenizer.vocabulary, tokenizer.width, tokenizer.encode)


def test_a_run_goes_on_until_there_is_a_choice() -> None:
    said, behind = forced_bytes(compiled(), START)

    assert said == b'<tool_call>\n{"name": "find_'
    assert forced_bytes(compiled(), behind) == (b"", behind)


def test_a_run_stops_before_a_mark_that_one_token_says() -> None:
    """What two marks begin with alike isn't spelled out: the tokens are the whole marks."""
    marks = [b"<|next|>", b"<|nap|>"]
    vocabulary = Vocabulary([*(bytes([byte]) for byte in range(256)), *marks, None], [258])
    automaton = compile_dfa(sequence(literal("ab"), choice(map(literal, ("<|next|>", "<|nap|>")))))

    run = forced_tokens(automaton, START, vocabulary, lambda text: list(text.encode()))
    between = forced_tokens(
        automaton, automaton.step(START, b"ab"), vocabulary, lambda text: list(text.encode())
    )

    assert run == ((ord("a"), ord("b")), ())
    assert between == ((), ())


def test_a_tool_name_is_forced_as_soon_as_its_rest_is_unique() -> None:
    automaton = compiled()
    state = automaton.step(START, b'<tool_call>\n{"name": "find_b')

    said, _ = forced_bytes(automaton, state)

    assert said == b'ook", "arguments": {"title": "'


def test_an_enum_value_is_forced_as_soon_as_its_rest_is_unique() -> None:
    automaton = compile_dfa(json_schema.value_grammar({"enum": ["novel", "novella", "poem"]}))

    assert forced_bytes(automaton, automaton.step(START, b'"p'))[0] == b'oem"'
    assert forced_bytes(automaton, automaton.step(START, b'"n'))[0] == b"ovel"


@each_tokenizer
def test_a_run_is_spelled_as_the_tokenizer_spells_it_but_for_its_last_token(
    name: str, smollm2: Path
) -> None:
    tokenizer = real_tokenizers.tokenizer(name, smollm2)
    said = '<tool_call>\n{"name": "find_book", "arguments": {"title": "'

    run = forced_tokens(compiled(only="find_book"), START, tokenizer.vocabulary, tokenizer.encode)

    assert tuple(tokenizer.encode(said)) == run.forced + run.open_end
    assert len(run.open_end) == 1


@each_tokenizer
def test_a_reply_that_is_known_to_its_end_is_forced_to_its_end(name: str, smollm2: Path) -> None:
    tokenizer = real_tokenizers.tokenizer(name, smollm2)

    tokens, open_end = forced_tokens(
        compiled(only="find_shelf"), START, tokenizer.vocabulary, tokenizer.encode
    )

    assert open_end == ()
    spelled = b"".join(tokenizer.vocabulary.tokens[token] or b"" for token in tokens[:-1])
    assert spelled == b'<tool_call>\n{"name": "find_shelf", "arguments": {}}\n</tool_call>'
    assert tokenizer.vocabulary.ends[0] == tokens[-1]


@each_tokenizer
@pytest.mark.parametrize("seed", range(8))
def test_along_any_reply_a_drafted_token_is_the_only_one_that_the_mask_admits(
    name: str, seed: int, smollm2: Path
) -> None:
    tokenizer = real_tokenizers.tokenizer(name, smollm2)
    form = ReplyFormat(DIALECTS["hermes"].markup, TOOLS, ToolChoice("required"))
    automaton = compile_dfa(reply_grammar(form), tokenizer.vocabulary.alphabet)
    decoder = GrammarMatcher(constrainer(automaton, tokenizer))
    said = Walker(automaton).say(seed).encode()
    drafted = 0

    while said:
        admitted = tokens_in_mask(decoder.token_bitmask())
        if decoder.forced_tokens:
            assert admitted == [decoder.forced_tokens[0]]
            drafted += 1
        token = max(
            (t for t in admitted if said.startswith(tokenizer.vocabulary.tokens[t] or b"\0")),
            key=lambda t: len(tokenizer.vocabulary.tokens[t] or b""),
        )
        assert decoder.accept_token(token)
        said = said.removeprefix(tokenizer.vocabulary.tokens[token] or b"")

    assert drafted > 5
    assert tokenizer.vocabulary.ends[0] in tokens_in_mask(decoder.token_bitmask())


def test_going_back_over_drafts_changes_nothing(smollm2: Path) -> None:
    tokenizer = real_tokenizers.tokenizer("smollm2", smollm2)
    decoder = GrammarMatcher(constrainer(compiled(only="find_book"), tokenizer))
    before, drafts = decoder.token_bitmask().tolist(), decoder.forced_tokens

    for token in drafts:
        assert decoder.accept_token(token)
    assert decoder.forced_tokens == ()
    decoder.rollback(len(drafts) - 2)
    halfway = decoder.forced_tokens
    decoder.rollback(2)

    assert drafts[2:] == halfway
    assert (before, drafts) == (decoder.token_bitmask().tolist(), decoder.forced_tokens)


def test_what_cannot_be_said_is_not_accepted_and_changes_nothing(smollm2: Path) -> None:
    tokenizer = real_tokenizers.tokenizer("smollm2", smollm2)
    decoder = GrammarMatcher(constrainer(compiled(), tokenizer))
    before = decoder.forced_tokens

    wrong = [tokenizer.vocabulary.ends[0], 10**6, *tokenizer.encode("Hello")]

    assert not any(decoder.accept_token(token) for token in wrong)
    assert before == decoder.forced_tokens


@each_tokenizer
def test_behind_its_budget_a_think_block_is_closed_between_two_characters(
    name: str, smollm2: Path
) -> None:
    tokenizer = real_tokenizers.tokenizer(name, smollm2)
    dialect = with_reasoning(DIALECTS["hermes"])
    form = ReplyFormat(
        dialect.markup, TOOLS, ToolChoice("required"), think=dialect.think, thinking=True
    )
    automaton = compile_dfa(reply_grammar(form), tokenizer.vocabulary.alphabet)
    close = tuple(tokenizer.encode("</think>"))
    budget = ThinkingBudget(3, between_characters_state(form, automaton), close)
    decoder = GrammarMatcher(constrainer(automaton, tokenizer), budget)

    for token in tokenizer.encode("a")[:1] * 3:
        assert decoder.forced_tokens == ()
        assert decoder.accept_token(token)

    assert close == decoder.forced_tokens
    for token in (*close, *tokenizer.encode(dialect.think.gap)):
        assert decoder.accept_token(token)
    assert decoder.forced_tokens  # the call that has to follow


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # vLLM's own, at import
def test_what_is_likely_is_drafted_behind_what_is_forced(smollm2: Path) -> None:
    from falsework.server.engines.vllm.scheduler import Grammar  # noqa: PLC0415 - it warns of itself

    tokenizer = real_tokenizers.tokenizer("smollm2", smollm2)
    tosses = {"type": "array", "items": {"enum": ["heads", "tails"]}, "minItems": 9, "maxItems": 9}
    automaton = compile_dfa(json_schema.value_grammar(tosses))
    grammar = Grammar(GrammarMatcher(constrainer(automaton, tokenizer)), PromptLookupDrafter())
    said = list(tokenizer.encode('["heads", "tails", "heads", "tails", "heads'))
    assert grammar.accept_tokens("", said)

    draft = grammar.drafts(said, 24)

    spelled = b"".join(tokenizer.vocabulary.tokens[token] or b"" for token in draft)
    assert spelled.startswith(b'", "tails", "heads')
    assert grammar.drafts(said, 1) == draft[:1]
    assert grammar.validate_tokens(draft) == draft


OPENING = '<tool_call>\n{"name": "find_book", "arguments": {"title": "'
"""Its last quote may join with the title's first letter, so it isn't forced."""


@pytest.mark.filterwarnings("ignore")  # vLLM's own, at import
@each_tokenizer
def test_the_end_of_a_run_is_likely_only(name: str, smollm2: Path) -> None:
    from falsework.server.engines.vllm.scheduler import Grammar  # noqa: PLC0415 - it warns of itself

    tokenizer = real_tokenizers.tokenizer(name, smollm2)
    decoder = GrammarMatcher(constrainer(compiled(only="find_book"), tokenizer))
    known = list(tokenizer.encode(OPENING))

    assert Grammar(decoder, None).drafts([], 64) == known[:-1]
    assert Grammar(decoder, PromptLookupDrafter()).drafts([], 64) == known
    assert Grammar(decoder, PromptLookupDrafter()).drafts([], len(known) - 1) == known[:-1]


@pytest.mark.filterwarnings("ignore")  # vLLM's own, at import
def test_a_value_that_was_said_before_is_drafted_behind_known_text(smollm2: Path) -> None:
    from falsework.server.engines.vllm.scheduler import Grammar  # noqa: PLC0415 - it warns of itself

    tokenizer = real_tokenizers.tokenizer("smollm2", smollm2)
    automaton = compiled(only="find_book")
    before = list(tokenizer.encode(OPENING + 'Emma", "kind": "poem", "pages": 1}}'))

    draft = Grammar(
        GrammarMatcher(constrainer(automaton, tokenizer)), PromptLookupDrafter()
    ).drafts(before, 64)

    spelled = b"".join(tokenizer.vocabulary.tokens[token] or b"" for token in draft)
    assert spelled.decode() == OPENING + 'Emma", "kind": "poem", "pages": 1}}\n</tool_call>'


def test_what_the_model_chose_is_told_from_known_text(smollm2: Path) -> None:
    tokenizer = real_tokenizers.tokenizer("smollm2", smollm2)
    decoder = GrammarMatcher(constrainer(compiled(only="find_book"), tokenizer))
    chosen = [decoder.last_was_sampled]

    for token in tokenizer.encode(OPENING + "Emma"):
        assert decoder.accept_token(token)
        chosen.append(decoder.last_was_sampled)

    title = len(tokenizer.encode("Emma"))
    assert chosen == [False] * (len(chosen) - title) + [True] * title
