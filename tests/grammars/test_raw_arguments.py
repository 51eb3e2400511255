"""Arguments without quotes: what is text and what isn't is known from the schema alone."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.family_replies import read
from support.walker import Walker

from falsework.grammars.dfa import compile_dfa
from falsework.grammars.events import Call, Tool
from falsework.grammars.reply_format import ReplyFormat, plan_reply
from falsework.grammars.reply_grammar import reply_grammar
from falsework.grammars.tool_choice import ToolChoice
from falsework.prompts.dialects import DIALECTS

RAW = [
    name for name, dialect in DIALECTS.items()
    if dialect.markup.elements or dialect.markup.bare_keys
]  # fmt: skip
UNMARKED = [
    name for name in RAW
    if (elements := DIALECTS[name].markup.elements) and not elements.after_string_key
]  # fmt: skip
TEXT = st.text(max_size=8).filter(lambda text: not any(0xD800 <= ord(c) <= 0xDFFF for c in text))


def form_of(dialect: str, value: Any, **more: Any) -> ReplyFormat:
    schema = {"type": "object", "properties": {"x": value}, "required": ["x"], **more}
    tool = Tool("f", "", schema, where="tools[0].function.parameters")
    return ReplyFormat(DIALECTS[dialect].markup, (tool,), ToolChoice("required"))


def admits(form: ReplyFormat, value: Any) -> bool:
    reply = form.markup.render([Call("f", json.dumps({"x": value}))])
    return compile_dfa(reply_grammar(form)).accepts(reply)


@pytest.mark.parametrize("dialect", RAW)
@pytest.mark.parametrize(
    ("schema", "fits", "not_"),
    [
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "é<b"], ["a", "abcd"]),
        ({"type": "string", "maxLength": 1000}, ["", "a" * 1000], ["a" * 1001]),
        ({"enum": ["a", "b c"]}, ["a", "b c"], ["b", ""]),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 1}, [[], ["é"]], [["a", "b"]]),
        (
            {"type": "object", "properties": {"y": {"type": "integer"}}},
            [{}, {"y": 1}],
            [{"y": "a"}],
        ),
    ],
)
def test_bounds_hold_without_quotes_too(
    dialect: str, schema: Any, fits: list[Any], not_: list[Any]
) -> None:
    form = form_of(dialect, schema)

    assert [admits(form, value) for value in fits] == [True] * len(fits)
    assert [admits(form, value) for value in not_] == [False] * len(not_)


@pytest.mark.parametrize("dialect", UNMARKED)
@pytest.mark.parametrize(
    ("types", "text", "heard"),
    [
        (["string", "null"], "null", None),
        (["string", "null"], "nul", "nul"),
        (["string", "integer"], "12", 12),
        (["string", "integer"], "12a", "12a"),
        (["string", "boolean"], "true", True),
        (["string", "array"], "[1]", [1]),
        (["string"], "null", "null"),
        (["string"], "[1]", "[1]"),
    ],
)
def test_text_that_looks_like_another_admitted_type_is_of_that_type(
    dialect: str, types: list[str], text: str, heard: Any
) -> None:
    form = form_of(dialect, {"type": types})
    reply = form.markup.render([Call("f", json.dumps({"x": text}))])

    (call,) = read(form, list(reply)).calls

    assert json.loads(call.arguments) == {"x": heard}
    assert compile_dfa(reply_grammar(form)).accepts(reply)


@pytest.mark.parametrize("dialect", RAW)
@given(text=TEXT)
@settings(max_examples=30, deadline=None)
def test_any_text_is_heard_as_it_was_said(dialect: str, text: str) -> None:
    form = form_of(dialect, {"type": "string"})

    (call,) = read(form, list(form.markup.render([Call("f", json.dumps({"x": text}))]))).calls

    assert json.loads(call.arguments) == {"x": text}


@pytest.mark.parametrize("dialect", RAW)
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_said_satisfies_the_schema(dialect: str, seed: int) -> None:
    value = {"anyOf": [{"type": "string", "maxLength": 6}, {"type": "integer"}, {"type": "null"},
                       {"type": "array", "items": {"enum": ["a", 1, None]}}]}  # fmt: skip
    form = form_of(dialect, value)

    reply = Walker(compile_dfa(reply_grammar(form))).say(seed, steps=60)

    for call in read(form, [reply]).calls:
        jsonschema.validate(json.loads(call.arguments)["x"], value)


@pytest.mark.parametrize("dialect", RAW)
@pytest.mark.parametrize("further", [True, {"type": "integer"}])
def test_what_a_family_cannot_spell_is_left_to_a_check(dialect: str, further: Any) -> None:
    value = {"type": "string", "maxLength": 2}
    form = form_of(dialect, value, additionalProperties=further)

    plan = plan_reply(form).arguments["f"]

    assert (plan.how, plan.checks) == (
        "checked", (("additionalProperties", "/additionalProperties"),)
    )  # fmt: skip
    assert plan.schema["additionalProperties"] == further
    assert (admits(form, "ab"), admits(form, "abc")) == (True, False)


@pytest.mark.parametrize("dialect", RAW)
def test_a_member_that_is_only_required_is_always_said(dialect: str) -> None:
    form = form_of(dialect, {"type": "string"}, required=["x", "y"])
    automaton = compile_dfa(reply_grammar(form))

    said = [
        form.markup.render([Call("f", json.dumps(arguments))])
        for arguments in ({"x": "a", "y": [1]}, {"x": "a", "y": "b"}, {"x": "a"}, {"y": 1})
    ]

    assert [automaton.accepts(one) for one in said] == [True, True, False, False]
    assert read(form, [said[0]]).calls == [Call("f", '{"x": "a", "y": [1]}')]


@pytest.mark.parametrize("dialect", UNMARKED)
def test_words_as_python_prints_them_are_heard_where_the_family_writes_them(dialect: str) -> None:
    form = form_of(dialect, {"type": "boolean"})
    said = form.markup.render([Call("f", '{"x": true}')]).replace("true", "True")
    elements = form.markup.elements
    assert elements

    assert compile_dfa(reply_grammar(form)).accepts(said) == elements.python_words
    if elements.python_words:
        assert [Call("f", '{"x": true}')] == read(form, list(said)).calls
