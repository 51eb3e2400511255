"""Both engines say the same replies: the automaton, and llguidance's grammar of the same form."""

import json
import random
from functools import partial
from typing import Any

import jsonschema
import pytest
from support.llguidance_walk import END, accepts, following, matcher
from support.walker import Walker

from falsework.grammars.dfa import START, compile_dfa
from falsework.grammars.events import Call, Tool
from falsework.grammars.llguidance_reply import lark_reply
from falsework.grammars.reply_format import ReplyFormat, ReplyPlan, UnsupportedFormat, plan_reply
from falsework.grammars.reply_grammar import reply_grammar
from falsework.grammars.schema_plan import LLGuidanceSchema, SchemaPlan
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.dialects import DIALECTS, Dialect, with_reasoning

Json = dict[str, Any]

OWN_SPELLING = [d for d in DIALECTS.values() if d.markup.elements or d.markup.bare_keys]
"""Families whose arguments an automaton always says: what they can't spell is checked."""
DIALECTS_THAT_ARE = [
    *(dialect for dialect in DIALECTS.values() if dialect not in OWN_SPELLING),
    with_reasoning(DIALECTS["scaffold"]),
    with_reasoning(DIALECTS["harmony"]),
    with_reasoning(DIALECTS["nemotron_json"]),
]


def name_of(dialect: Dialect) -> str:
    return dialect.name + ("-think" if dialect.think else "")


each_dialect = pytest.mark.parametrize("dialect", DIALECTS_THAT_ARE, ids=name_of)


def closed(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties)[:1],
        "additionalProperties": False,
    }


INSIDE = closed(wind={"enum": ["N", "S"]}, unit={"enum": ["C", "°"]}, much={"enum": [1, 10, {}]})
"""Without words, which Python spells in its own way and llguidance doesn't."""
TOOLS = (
    Tool("get_weather", "", closed(city={"enum": ["Zug", "Zürich"]}, detail=INSIDE)),
    Tool("get", "", closed()),
    Tool("get_wea", "", closed(list={"type": "array", "items": {"enum": [1, 12]}, "maxItems": 3})),
)
TREE: Json = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/tree"}},
    "required": ["tree"],
    "additionalProperties": False,
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "below": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
}


def form(dialect: Dialect, mode: str, answer: Json | None = None, **choice: Any) -> ReplyFormat:
    thinks = dialect.think is not None
    may = ToolChoice(mode, **choice)  # type: ignore[arg-type]
    return ReplyFormat(
        dialect.markup, TOOLS, may, answer, think=dialect.think, thinking=thinks and mode == "auto"
    )


CHOICES: dict[str, Json] = {
    "auto": {"mode": "auto"},
    "required": {"mode": "required"},
    "one call": {"mode": "auto", "parallel": False},
    "one tool": {"mode": "required", "only": frozenset({"get"})},
    "no call": {"mode": "none"},
}
# Every choice for families with trigger, without, and with marks round text; one for the others.
each_dialect_and_choice = pytest.mark.parametrize(
    ("dialect", "choice"),
    [
        pytest.param(dialect, choice, id=f"{name_of(dialect)}-{choice}")
        for dialect in DIALECTS_THAT_ARE
        for choice in CHOICES
        if choice == "auto" or dialect.name in {"hermes", "llama3", "harmony"}
    ],
)


@each_dialect_and_choice
def test_llguidance_says_what_the_automaton_says(dialect: Dialect, choice: str) -> None:
    asked = form(dialect, **CHOICES[choice])
    automaton = compile_dfa(reply_grammar(asked))
    grammar = matcher(lark_reply(asked, plan_reply(asked)))
    walker = Walker(automaton)

    said = {walker.say(seed, steps=100) for seed in range(8)}

    assert len(said) > 2 or choice == "one tool"
    assert [text for text in said if not accepts(grammar, text)] == []


@each_dialect_and_choice
def test_after_every_byte_both_engines_admit_the_same(dialect: Dialect, choice: str) -> None:
    asked = form(dialect, **CHOICES[choice])
    automaton = compile_dfa(reply_grammar(asked))
    grammar = matcher(lark_reply(asked, plan_reply(asked)))
    draw = random.Random(5)

    bytes_of: dict[int, list[int]] = {}
    for byte, number in enumerate(automaton.classes.tolist()):
        bytes_of.setdefault(number, []).append(byte)

    for _ in range(4):
        begun, state, said = grammar.deep_copy(), START, b""
        for _ in range(120):
            ways = {byte for way, _ in automaton.transitions(state) for byte in bytes_of[way]}
            ends = {END} if automaton.is_accepting(state) else set()
            assert following(begun) == ways | ends, said
            if not ways:
                break
            marked = [byte for byte in ways if chr(byte) in '"<}[]`']
            byte = draw.choice(marked if marked and draw.random() < 0.5 else sorted(ways))
            assert begun.consume_token(byte)
            state, said = automaton.step(state, bytes([byte])), said + bytes([byte])


@each_dialect
def test_a_tree_is_said_however_deep_it_nests(dialect: Dialect) -> None:
    tree: Json = {"value": 0}
    for number in range(1, 30):
        tree = {"value": number, "below": [tree, {"value": -number}]}
    tool = Tool("plant", "", TREE)
    asked = ReplyFormat(dialect.markup, (tool,), ToolChoice("required"))
    plan = plan_reply(asked)
    grammar = matcher(lark_reply(asked, plan))

    written = dialect.markup.render([Call("plant", json.dumps({"tree": tree}))])

    jsonschema.validate({"tree": tree}, TREE)
    assert plan.needs_llguidance
    assert accepts(grammar, written)
    assert not accepts(grammar, written.replace('"value": 7', '"value": "7"'))


@pytest.mark.parametrize("dialect", OWN_SPELLING, ids=lambda d: d.name)
def test_a_family_with_a_spelling_of_its_own_never_needs_llguidance(dialect: Dialect) -> None:
    asked = ReplyFormat(dialect.markup, (Tool("plant", "", TREE),), ToolChoice("required"))
    plan = plan_reply(asked)

    assert not plan.needs_llguidance
    assert plan.arguments["plant"].how == "checked"
    with pytest.raises(UnsupportedFormat, match="can't spell"):
        lark_reply(asked, plan)


def test_an_answer_that_may_begin_like_a_call_is_refused() -> None:
    """Llama's calls are JSON alone in a message."""
    answer: Json = {"type": "object", "properties": {"name": {"type": "string"}}}
    asked = form(DIALECTS["llama3"], "auto", answer)

    with pytest.raises(UnsupportedFormat, match=r"begins .* is a call"):
        lark_reply(asked, plan_reply(asked))


@pytest.mark.parametrize("answer", [{"type": "array"}, {"enum": ["yes", "no"]}, TREE])
def test_an_answer_is_json_of_its_schema(answer: Json) -> None:
    asked = ReplyFormat(DIALECTS["hermes"].markup, answer=answer)
    exporting = partial(LLGuidanceSchema, answer)
    plan = ReplyPlan({}, SchemaPlan("llguidance", answer, exporting=exporting))
    grammar = matcher(lark_reply(asked, plan))

    said = [text for text in ('["<tool_call>", {}]', '"no"', '{"tree": {"value": 1}}', "no")
            if accepts(grammar, text)]  # fmt: skip

    assert len(said) == 1
    jsonschema.validate(json.loads(said[0]), answer)
