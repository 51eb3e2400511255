"""The schema language: what may be said satisfies the schema; what can't be promised is refused."""

import json
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.json_schema import faults
from support.walker import Walker

from falsework.grammars import json_schema, json_values
from falsework.grammars.dfa import DFA, compile_dfa
from falsework.grammars.expressions import GrammarTooLarge
from falsework.grammars.schema_errors import UnsupportedSchema
from falsework.grammars.schema_plan import plan

NAMES = st.text(min_size=1, max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8)


def spellable(value: Any) -> bool:
    """Lone surrogates have no text in UTF-8."""
    return not any(0xD800 <= ord(c) <= 0xDFFF for c in json.dumps(value, ensure_ascii=False))


def with_value(schema: dict[str, Any], value: st.SearchStrategy[Any]) -> Any:
    return value.map(lambda one: (schema, one))


def strings(bounds: tuple[int, int] | None) -> Any:
    if bounds is None:
        return with_value({"type": "string"}, st.text(max_size=10).filter(spellable))
    low, high = bounds[0], bounds[0] + bounds[1]
    schema = {"type": "string", "minLength": low, "maxLength": high}
    return with_value(schema, st.text(min_size=low, max_size=high).filter(spellable))


def arrays(drawn: tuple[tuple[dict[str, Any], Any], int, int, int]) -> Any:
    (items, one), low, more, count = drawn
    schema = {"type": "array", "items": items, "minItems": low, "maxItems": low + more}
    return st.just((schema, [one] * min(low + count, low + more)))


def objects(drawn: dict[str, tuple[tuple[dict[str, Any], Any], bool, bool]]) -> Any:
    schema = {
        "type": "object",
        "properties": {name: below for name, ((below, _), _, _) in drawn.items()},
        "required": [name for name, (_, required, _) in drawn.items() if required],
        "additionalProperties": False,
    }
    value = {n: one for n, ((_, one), required, given) in drawn.items() if required or given}
    return st.just((schema, value))


def listed(drawn: list[Any]) -> Any:
    return st.sampled_from(drawn).map(lambda one: ({"enum": drawn}, one))


LEAVES = st.one_of(
    (st.none() | st.tuples(st.integers(0, 3), st.integers(0, 5))).flatmap(strings),
    with_value({"type": "integer"}, st.integers(-(10**18), 10**18)),
    with_value({"type": "boolean"}, st.booleans()),
    with_value({"type": "null"}, st.none()),
    with_value({"type": "number"}, st.integers(-999, 999).map(lambda n: n / 8)),
    st.lists(SCALARS.filter(spellable), min_size=1, max_size=4).flatmap(listed),
)
PAIRS = st.recursive(
    LEAVES,
    lambda below: st.one_of(
        st.tuples(below, st.integers(0, 2), st.integers(0, 3), st.integers(0, 3)).flatmap(arrays),
        st.dictionaries(
            NAMES.filter(spellable), st.tuples(below, st.booleans(), st.booleans()), max_size=4
        ).flatmap(objects),
        st.tuples(below, below).map(lambda p: ({"anyOf": [p[0][0], p[1][0]]}, p[1][1])),
    ),
    max_leaves=6,
)


def compiled(schema: Any) -> DFA:
    return compile_dfa(json_schema.value_grammar(schema))


@given(PAIRS)
@settings(max_examples=150, deadline=None)
def test_a_value_that_satisfies_the_schema_can_be_said(pair: tuple[dict[str, Any], Any]) -> None:
    schema, value = pair

    assert compiled(schema).accepts(json_values.dumps(value))


@given(PAIRS, st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_whatever_can_be_said_satisfies_the_schema(
    pair: tuple[dict[str, Any], Any], seed: int
) -> None:
    schema, _ = pair

    said = Walker(compiled(schema)).say(seed)

    assert faults(json.loads(said), schema) == [], said


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}, "ab": {"type": "integer"}},
         "additionalProperties": {"type": "boolean"}},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"é": {"type": "null"}}, "additionalProperties": True},
        {"properties": {"a": True}, "required": ["b"], "additionalProperties": {"type": "integer"}},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": ["string", "null"], "maxLength": 2}}},
        {"type": "string", "anyOf": [{"enum": ["x", 1]}, {"maxLength": 1}]},
        {"allOf": [{"properties": {"a": {"type": "integer"}}}], "required": ["a"]},
        {"type": "integer", "enum": [1, "1", 2.5, None]},
        {"type": "object", "properties": {'q"k': {"const": {'k"': [1, {}]}}, "": {}}},
        {},
        True,
    ],
)  # fmt: skip
def test_every_form_of_schema_is_kept(schema: Any, seed: int) -> None:
    said = Walker(compiled(schema)).say(seed)

    assert faults(json.loads(said), schema) == [], said


@pytest.mark.parametrize(
    ("schema", "keyword", "pointer"),
    [
        ({"type": "object", "properties": {"a/b": {"type": "string", "pattern": r"(a)\1"}}},
         "pattern", "/properties/a~1b/pattern"),
        ({"type": "array", "items": {"uniqueItems": True}}, "uniqueItems", "/items/uniqueItems"),
        ({"type": "string", "format": "regex"}, "format", "/format"),
        ({"not": {"uniqueItems": True}}, "not", "/not"),
        ({"$ref": "https://example.com/schema"}, "$ref", "/$ref"),
        ({"$ref": "#/$defs/none"}, "$ref", "/$ref"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "$ref", "/"),
        ({"properties": {"a": {"$ref": "#"}}}, "$ref", "/"),
        ({"enum": [1], "type": "string"}, None, "/"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, None, "/"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, None, "/"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, None, "/"),
        ({"pattern": "("}, "pattern", "/pattern"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "$ref", "/$defs/a/$ref"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_refused_by_keyword_and_pointer(
    schema: Any, keyword: str, pointer: str
) -> None:
    with pytest.raises(UnsupportedSchema) as refused:
        compiled(schema)

    assert (keyword, pointer) == (refused.value.keyword, refused.value.pointer)


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "objekt"}, "/type"),
        ({"properties": {"a": {"minLength": "x"}}}, "/properties/a/minLength"),
        ({"properties": {"a": 5}}, "/properties/a"),
        ({"anyOf": []}, "/anyOf"),
    ],
)
def test_what_is_no_schema_at_all_is_refused_by_pointer(schema: Any, pointer: str) -> None:
    with pytest.raises(UnsupportedSchema) as refused:
        compiled(schema)

    assert pointer == refused.value.pointer


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["a"], "$ref": "http://127.0.0.1:PORT/"},
        {"$schema": "http://127.0.0.1:PORT/", "enum": ["a"]},
        {"$ref": "http://127.0.0.1:PORT/"},
        {"enum": ["root"], "$ref": "file:///etc/passwd"},
    ],
)
def test_what_a_schema_names_elsewhere_is_not_fetched(schema: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = str(listener.getsockname()[1])
        with pytest.raises(UnsupportedSchema):
            json_schema.value_grammar(json.loads(json.dumps(schema).replace("PORT", port)))
        with pytest.raises(BlockingIOError):
            listener.accept()


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """Return a schema whose references double at each level."""
    definitions = {
        f"d{n}": {"type": "object", "properties": {k: {"$ref": f"#/$defs/d{n + 1}"} for k in "ab"}}
        for n in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "integer"}}}


def test_a_schema_too_deep_is_refused() -> None:
    assert compiled(deep(20)).accepts('{"a": ' * 20 + "1" + "}" * 20)
    with pytest.raises(UnsupportedSchema, match="deeper than"):
        compiled(deep(64))


def test_references_that_multiply_are_refused_soon() -> None:
    with pytest.raises(UnsupportedSchema):
        compiled(doubling(16))

    planned = plan(doubling(16))

    assert planned.how == "llguidance"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "array", "maxItems": 900}, "maxItems": 900},
        {"type": "array", "items": {"type": "string"}, "minItems": 10**7},
    ],
)
def test_a_schema_that_needs_too_many_states_is_refused(schema: Any) -> None:
    with pytest.raises((GrammarTooLarge, UnsupportedSchema)):
        compiled(schema)


def test_a_tool_without_parameters_takes_no_arguments() -> None:
    for parameters in ({}, {"type": "object"}, {"type": "object", "properties": {}}):
        automaton = compile_dfa(json_schema.arguments_grammar(parameters))

        assert automaton.accepts("{}")
        assert not automaton.accepts('{"a": 1}')


def test_parameters_must_be_an_object() -> None:
    with pytest.raises(UnsupportedSchema, match="type object"):
        json_schema.arguments_grammar({"type": "string"})


def test_an_enum_value_may_be_the_beginning_of_another() -> None:
    automaton = compiled({"enum": ["New York", "New York City", 1, 10, 1.5]})

    for text in ('"New York"', '"New York City"', "1", "10", "1.5"):
        assert automaton.accepts(text)
    assert not automaton.accepts('"New York C"')


def test_lengths_count_characters_not_bytes_or_escapes() -> None:
    automaton = compiled({"type": "string", "minLength": 2, "maxLength": 2})

    for text in ('"é😀"', r'"\u00e9\n"', r'"\ud83d\ude00x"'):
        assert automaton.accepts(text)
    for text in ('"x"', '"xyz"', r'"\ud83dx"'):
        assert not automaton.accepts(text)
