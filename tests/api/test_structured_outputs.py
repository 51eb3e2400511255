"""structured_outputs and guided_*: what form a chat reply's text has."""

from typing import Any

import pytest
from support.chat_bodies import tool
from support.scripted_app import whole
from support.scripted_chat import says, told

from falsework.grammars.dfa import from_bytes
from falsework.server.errors import BadRequestError
from falsework.server.generation.turn import TurnBuilder

Json = dict[str, Any]

ARITHMETIC = 'start: NUMBER ("+" NUMBER)*\nNUMBER: /[0-9]+/'
FORMS: dict[str, tuple[Json, str]] = {
    "json": ({"structured_outputs": {"json": {"enum": [12, 13]}}}, "12"),
    "json as text": ({"structured_outputs": {"json": '{"enum": [12, 13]}'}}, "13"),
    "any object": ({"structured_outputs": {"json_object": True}}, '{"a": 1}'),
    "regex": ({"structured_outputs": {"regex": "[a-c]{3}"}}, "abc"),
    "choice": ({"structured_outputs": {"choice": ["yes", "no way"]}}, "no way"),
    "lark": ({"structured_outputs": {"grammar": ARITHMETIC}}, "1+22"),
    "guided json": ({"guided_json": {"enum": [12, 13]}}, "12"),
    "guided regex": ({"guided_regex": "[a-c]{3}"}, "cab"),
    "guided choice": ({"guided_choice": ["yes", "no"]}, "no"),
    "guided grammar": ({"guided_grammar": ARITHMETIC}, "7"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_text_of_the_form_is_the_answer(plain: TurnBuilder, form: str) -> None:
    fields, text = FORMS[form]
    engine = says(*text)

    reply = whole(engine, plain, **fields)

    assert told(reply) == (text, None, [], "stop")
    (_, _, constraint) = engine.asked[0]
    assert constraint is not None


@pytest.mark.parametrize("more", [{}, {"additionalProperties": True}], ids=["closed", "open"])
def test_an_answer_has_the_members_that_its_schema_names_and_others_where_it_lets_them_in(
    plain: TurnBuilder, more: Json
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, **more}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    engine = says('{"a": 1}')

    whole(engine, plain, response_format=form)

    (_, _, constraint) = engine.asked[0]
    assert constraint is not None
    automaton = from_bytes(constraint.grammar)
    assert automaton.accepts('{"a": 1}')
    assert automaton.accepts('{"a": 1, "b": 2}') is bool(more)


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"structured_outputs": {"grammar": "start: x"}}, "structured_outputs.grammar", "unknown"),
        ({"guided_grammar": 'begin: "a"'}, "guided_grammar", "start"),
        ({"guided_regex": "(?=a)b"}, "guided_regex", "look-around"),
        ({"guided_regex": "a{9999}{9999}{9999}"}, "guided_regex", "."),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "at least 1"),
        ({"structured_outputs": {}}, "structured_outputs", "one of"),
        ({"structured_outputs": {"regex": 7}}, "structured_outputs.regex", "string"),
        ({"guided_json": "{"}, "guided_json", "valid JSON"),
        ({"guided_json": {"type": "nothing"}}, "guided_json", "nothing"),
        ({"guided_json": {}, "guided_regex": "a"}, "guided_regex", "beside"),
        (
            {"guided_json": {}, "response_format": {"type": "json_object"}},
            "guided_json",
            "beside 'response_format'",
        ),
        (
            {"structured_outputs": {"regex": "a", "whitespace_pattern": " "}},
            "structured_outputs.whitespace_pattern",
            "isn't supported",
        ),
        ({"guided_regex": "a", "tools": [tool("f")]}, "guided_regex", "tool_choice"),
    ],
)
def test_what_is_wrong_is_refused_by_the_name_of_its_field(
    plain: TurnBuilder, fields: Json, param: str, reason: str
) -> None:
    with pytest.raises(BadRequestError, match=reason) as refused:
        whole(says("x"), plain, **fields)

    assert refused.value.param == param
