"""Where other servers are known to fail: what is constrained, and what reaches the client."""

import functools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from support import chat_templates
from support.chat_bodies import Json, asked, named, tool
from support.scripted_app import chunks, whole
from support.scripted_chat import cut, folded, told

from falsework.grammars import json_schema
from falsework.grammars.dfa import DFA, compile_dfa, from_bytes
from falsework.grammars.events import Call, Tool
from falsework.grammars.masks import tokens_in_mask
from falsework.grammars.reply_format import ReplyFormat
from falsework.grammars.reply_grammar import reply_grammar
from falsework.grammars.schema_errors import UnsupportedSchema
from falsework.grammars.tool_choice import ToolChoice
from falsework.grammars.vocabulary import Vocabulary
from falsework.prompts.detection import detect_renderer
from falsework.prompts.dialects import DIALECTS
from falsework.prompts.renderer import PromptRenderer
from falsework.prompts.tokenizers import build_vocabulary
from falsework.server.engines.matcher import CompiledGrammar, GrammarMatcher
from falsework.server.engines.scripted import ScriptedEngine, ScriptedReply
from falsework.server.generation.turn import PreparedTurn, TurnBuilder

COUNT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
AB = {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
BUDGET = 40

each_dialect = pytest.mark.parametrize("name", DIALECTS)


def replies(name: str, mode: str, parameters: Json = COUNT, **policy: Any) -> DFA:
    """Return what may be said in a dialect, behind the think block."""
    tools = (Tool("count", "", parameters), Tool("other", "", {}))
    choice = ToolChoice(mode, **policy)  # type: ignore[arg-type]
    return compile_dfa(reply_grammar(ReplyFormat(DIALECTS[name].markup, tools, choice)))


@each_dialect
@pytest.mark.parametrize("policy", [{}, {"only": frozenset({"count"}), "parallel": False}])
@pytest.mark.parametrize("wrong", ['{"n": "abc", "zz": 1}', '{"n": "abc"}', '{"zz": 1}', "42", ""])
def test_arguments_satisfy_their_schema_though_no_tool_is_strict(
    name: str, policy: Json, wrong: str
) -> None:
    automaton = replies(name, "required", **policy)
    write = DIALECTS[name].markup.render

    assert automaton.accepts(write([Call("count", '{"n": 5}')]))
    assert not automaton.accepts(write([Call("count", wrong)]))


@pytest.mark.parametrize(
    ("keyword", "schema", "violation"),
    [
        ("uniqueItems", {"type": "array", "uniqueItems": True}, [1, 1]),
        ("pattern", {"type": "string", "pattern": "^a+$", "maxLength": 2}, "aaa"),
        ("format", {"type": "string", "format": "date", "minLength": 3}, "xyz"),
        ("not", {"not": {"const": 5}}, 5),
        ("if", {"if": {"type": "integer"}, "then": {"maximum": 3}}, 7),
        ("contains", {"type": "array", "contains": {"const": 5}}, [1]),
        ("oneOf", {"oneOf": [{"type": "integer"}, {"enum": [1, "x"]}]}, 1),
        ("allOf", {"allOf": [{"type": "string"}, {"enum": ["a", "b"]}]}, 42),
        ("multipleOf", {"type": "integer", "multipleOf": 7}, 8),
    ],
)
def test_a_keyword_is_enforced_or_refused_by_name_and_never_dropped(
    keyword: str, schema: Json, violation: Any
) -> None:
    parameters = {"type": "object", "properties": {"v": schema}, "required": ["v"]}

    said = json.dumps({"v": violation}, ensure_ascii=False)

    assert refused(parameters) == keyword or not may_say(parameters, said)


@pytest.mark.parametrize(
    "contradiction",
    [
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"const": 5, "not": {"const": 5}},
    ],
)
def test_a_contradiction_is_refused_and_no_part_of_it_dropped(contradiction: Json) -> None:
    parameters = {"type": "object", "properties": {"v": contradiction}, "required": ["v"]}

    with pytest.raises(UnsupportedSchema, match="nothing satisfies it"):
        json_schema.arguments_grammar(parameters)


def refused(parameters: Json) -> str | None:
    """Return the keyword for which these parameters are refused."""
    try:
        json_schema.arguments_grammar(parameters)
    except UnsupportedSchema as fault:
        return fault.keyword
    return None


def may_say(parameters: Json, text: str) -> bool:
    return compile_dfa(json_schema.arguments_grammar(parameters)).accepts(text)


@functools.lru_cache
def speaking(name: str, folder: Path) -> TurnBuilder:
    """Return the scaffold of a model that speaks a dialect."""
    tokenizer, dialect = chat_templates.smollm2(folder), DIALECTS[name]
    vocabulary = build_vocabulary(tokenizer, dialect.markers)
    return TurnBuilder(PromptRenderer(tokenizer, dialect, knows_tools=False), vocabulary, 4096,
                    think_budget=BUDGET)  # fmt: skip


def both(scaffold: TurnBuilder, text: str, finish: Any = "stop", **fields: Any) -> list[Any]:
    """Return what the client is told of a reply: whole, and streamed in several cuts."""
    ways = [[text], list(text), cut(text, list(range(0, len(text), 7)))]
    asking = {"tools": [tool("f", parameters=AB), tool("g")], **fields}
    said = [
        folded(chunks(ScriptedEngine(ScriptedReply(pieces, finish)), scaffold, **asking))
        for pieces in ways
    ]
    return [told(whole(ScriptedEngine(ScriptedReply([text], finish)), scaffold, **asking)), *said]


F5, F6, G0 = ("f", '{"a": 5, "b": "x; y"}'), ("f", '{"a": 6, "b": "x; y"}'), ("g", "{}")
CALLS = {"no arguments": [G0], "one": [F5], "two": [F5, G0], "three": [G0, F5, F6]}


@each_dialect
@pytest.mark.parametrize("said", CALLS.values(), ids=CALLS)
def test_calls_are_the_same_streamed_and_not(
    name: str, said: Sequence[tuple[str, str]], smollm2: Path
) -> None:
    text = DIALECTS[name].markup.render([Call(*each) for each in said])

    answers = both(speaking(name, smollm2), text)

    assert answers == [(None, None, list(said), "tool_calls")] * 4


@each_dialect
def test_text_and_then_what_looks_like_a_call_is_the_same_streamed_and_not(
    name: str, smollm2: Path
) -> None:
    markup = DIALECTS[name].markup
    text = "Sure.\n" + markup.render([Call(*G0)])

    answers = both(speaking(name, smollm2), text)

    as_call, as_text = ("Sure.\n", None, [G0], "tool_calls"), (text, None, [], "stop")
    assert answers == [as_call if markup.trigger else as_text] * 4


@each_dialect
def test_a_call_cut_inside_a_string_is_no_call_streamed_and_not(name: str, smollm2: Path) -> None:
    text = DIALECTS[name].markup.render([Call(*G0), Call(*F5)])
    text = text[: text.index("x; y") + 1]

    answers = both(speaking(name, smollm2), text, "length")

    assert answers == [(None, None, [G0], "length")] * 4


@each_dialect
def test_json_in_an_answer_is_no_call(name: str, smollm2: Path) -> None:
    text = 'He is {"name": "Bob", "parameters": {"age": 5}} in the file.'

    answers = both(speaking(name, smollm2), text)

    assert answers == [(text, None, [], "stop")] * 4


@pytest.mark.parametrize(
    "broken",
    [
        '<tool_call>\n{"arguments": {"n": 5}, "name": "count"}\n</tool_call>',
        '<tool_call>\n{"name": "count", "arguments": {"n": 5,}}\n</tool_call>',
        '<tool_call>\n{"name": "count", "arguments": {"n": 5}\n</tool_call>',
        '<tool_call>\n{"name": "rm_rf", "arguments": {}}\n</tool_call>',
    ],
)
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_a_call_that_peers_read_differently_streamed_cannot_be_said(mode: str, broken: str) -> None:
    assert not replies("hermes", mode).accepts(broken)


MULTILINE = '{\n  "a": 5,\n\n  "b": "```\\n</think>"\n}'


def test_calls_of_deepseek_r1_survive_arguments_on_many_lines(smollm2: Path) -> None:
    text = DIALECTS["deepseek_r1"].markup.render([Call("f", MULTILINE), Call(*G0)])

    answers = both(speaking("deepseek_r1", smollm2), text)

    assert answers == [(None, None, [("f", MULTILINE), G0], "tool_calls")] * 4


@pytest.fixture(scope="module")
def deepseek() -> tuple[TurnBuilder, Vocabulary]:
    tokenizer = chat_templates.deepseek(chat_templates.DEEPSEEK_R1)
    prompter = detect_renderer(tokenizer)
    vocabulary = build_vocabulary(tokenizer, prompter.dialect.markers)
    return TurnBuilder(prompter, vocabulary, 4096, think_budget=BUDGET), vocabulary


SWITCH = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "where": {"enum": ["here", "there"]}},
    "required": ["on", "where"],
}


def decoded(turn: PreparedTurn, vocabulary: Vocabulary, draw: random.Random) -> Iterator[int]:
    """Yield the tokens of a model that never closes its think block, and then says anything."""
    assert turn.constraint
    width = len(vocabulary.tokens) // 32 + 1
    constrainer = CompiledGrammar(
        from_bytes(turn.constraint.grammar), vocabulary, width, lambda _: ()
    )
    decoder = GrammarMatcher(constrainer, turn.constraint.think, turn.constraint.prefix)
    while not decoder.is_terminated:
        possible = tokens_in_mask(decoder.token_bitmask())
        unwilling = [token for token in possible if b"<" not in (vocabulary.tokens[token] or b"")]
        token = draw.choice(unwilling or possible)
        assert decoder.accept_token(token)
        yield token


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("choice", ["required", named("switch")], ids=["required", "named"])
def test_deepseek_r1_that_never_closes_its_think_block_still_has_to_call(
    deepseek: tuple[TurnBuilder, Vocabulary], choice: Any, seed: int
) -> None:
    scaffold, vocabulary = deepseek
    question = asked(
        tools=[tool("switch", parameters=SWITCH)], tool_choice=choice, parallel_tool_calls=False
    )
    turn = anyio.run(scaffold.build, question)

    said = [vocabulary.tokens[one] for one in decoded(turn, vocabulary, random.Random(seed))]
    text = b"".join(spelled for spelled in said if spelled).decode()
    thoughts, _, reply = text.partition("</think>")

    content, reasoning, calls, finish = told(
        whole(
            ScriptedEngine(ScriptedReply(list(text))),
            scaffold,
            tools=[tool("switch", parameters=SWITCH)],
        )
    )
    ((name, arguments),) = calls
    assert turn.constraint is not None
    assert BUDGET <= len(scaffold._encode(thoughts)) <= 4 * BUDGET
    assert (content, reasoning, name, finish) == (None, thoughts, "switch", "tool_calls")
    assert set(json.loads(arguments)) == {"on", "where"}
    assert reply.startswith("\n\n<｜tool▁calls▁begin｜>")
