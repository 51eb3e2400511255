"""How schemas are served: exactly, checked, or refused; and what a hostile one may cost."""

import json
import time
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from support.walker import Walker

from falsework.grammars.dfa import compile_dfa
from falsework.grammars.schema_errors import UnsupportedSchema
from falsework.grammars.schema_plan import Limits, plan
from falsework.grammars.warm_up import warm_up
from falsework.server.cli.schema_report import check_schema

SHAPE = {"oneOf": [
    {"type": "object", "properties": {"kind": {"const": kind}, size: {"type": "number",
     "exclusiveMinimum": 0}}, "required": ["kind", size]}
    for kind, size in (("circle", "radius"), ("square", "side"))
]}  # fmt: skip
TREE = {"type": "object", "properties": {"v": {"type": "integer"},
        "c": {"type": "array", "items": {"$ref": "#"}}}}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "how"),
    [
        (SHAPE, "automaton"),
        (TREE, "llguidance"),
        ({"x-order": 3, "example": 5, "format": "int32", "type": "integer"}, "automaton"),
        ({"type": "array", "uniqueItems": True}, "checked"),
        ({"properties": {"a": {"type": "boolean", "enum": ["True"]}}}, "automaton"),
        ({"type": "array", "items": {"type": "array", "maxItems": 900}, "maxItems": 900},
         "llguidance"),
        (True, "automaton"),
    ],
)  # fmt: skip
def test_a_schema_is_served_exactly_where_it_can_be(schema: Any, how: str) -> None:
    assert plan(schema).how == how


def test_what_is_left_to_a_check_is_named_with_its_place() -> None:
    planned = plan(
        {"type": "object", "properties": {"a/b": {"type": "array", "uniqueItems": True}}}
    )

    assert planned.checks == (("uniqueItems", "/properties/a~1b/uniqueItems"),)


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"$schema": "http://json-schema.org/draft-04/schema#", "type": "number", "minimum": 3,
          "exclusiveMinimum": True}, 4, 3),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
          "items": [{"const": 1}], "additionalItems": False}, [1], [1, 2]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"const": 1}},
          "$ref": "#/definitions/a", "type": "null"}, 1, None),
        ({"type": "string", "nullable": True}, None, 1),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "string",
          "nullable": True}, "a", None),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://a.b/c",
          "definitions": {"x": {"id": "#x", "type": "null"}}, "$ref": "#x"}, None, 1),
        ({"$defs": {"x": {"$anchor": "y", "const": 2}}, "$ref": "#y"}, 2, 1),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "const": 1}, 2, ...),
    ],
)  # fmt: skip
def test_a_keyword_means_what_its_draft_says(schema: Any, valid: Any, invalid: Any) -> None:
    instances = [valid] if invalid is ... else [valid, invalid]

    assert check_schema("", schema, instances).admitted == (True, False)[: len(instances)]


KINDS = [
    SHAPE,
    {"type": "string", "pattern": "^[a-c]+(-[0-9])?$", "minLength": 3, "maxLength": 9},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uri", "maxLength": 40},
    {"type": "string", "format": "email"},
    {"type": "number", "minimum": -1.5, "exclusiveMaximum": 2.25},
    {"type": "integer", "multipleOf": 7, "not": {"enum": [7, 14]}},
    {"type": "object", "patternProperties": {"^x": {"type": "integer"}, "y$": {"minimum": 3}},
     "additionalProperties": {"type": "null"}, "maxProperties": 3},
    {"type": "object", "properties": {"a": {"type": "boolean"}}, "propertyNames": {"maxLength": 2},
     "minProperties": 1},
    {"type": "array", "contains": {"const": 5}, "items": {"enum": [4, 5]}, "maxItems": 4},
    {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b", 1, None]}},
    {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "boolean"}},
    {"type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {}}, "required": ["a"],
     "if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}},
    {"allOf": [{"type": "object", "properties": {"a": {"minimum": 2}}},
               {"properties": {"a": {"type": "integer", "maximum": 4}}, "required": ["a"]}]},
    {"type": "object", "dependentRequired": {"a": ["b"]}, "properties": {"a": {}, "b": {}}},
    {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "integer"}],
     "not": {"const": "ab"}},
]  # fmt: skip


@pytest.mark.parametrize("schema", KINDS, ids=lambda one: json.dumps(one)[:50])
def test_whatever_is_said_is_valid_by_two_validators(schema: Any) -> None:
    planned = plan(schema)
    assert planned.expression is not None
    walker = Walker(compile_dfa(planned.expression))
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    first = jsonschema.Draft202012Validator(schema, format_checker=checker)
    second = jsonschema_rs.validator_for(schema, validate_formats=True)

    said = [json.loads(walker.say(seed)) for seed in range(40)]

    assert planned.how == "automaton"
    assert [one for one in said if not (first.is_valid(one) and second.is_valid(one))] == []


@pytest.mark.parametrize("schema", [*KINDS, TREE], ids=lambda one: json.dumps(one)[:50])
def test_what_llguidance_is_given_admits_no_more_than_the_schema(schema: Any) -> None:
    exported = plan(schema).llguidance
    judge = jsonschema.Draft202012Validator(exported.schema)
    expression = plan(schema).expression
    if expression is None or exported.checks:
        return
    walker = Walker(compile_dfa(expression))

    assert all(judge.is_valid(json.loads(walker.say(seed))) for seed in range(20))


def chain(length: int) -> dict[str, Any]:
    links = {f"r{n}": {"$ref": f"#/$defs/r{n + 1}"} for n in range(length)}
    return {"$ref": "#/$defs/r0", "$defs": {**links, f"r{length}": {"const": 1}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


HOSTILE = {
    "nested counts": {"type": "array", "items": {"type": "array", "maxItems": 900},
                      "maxItems": 900},
    "alternatives that multiply": {"allOf": [
        {"oneOf": [{"required": [f"a{n}"]}, {"required": [f"b{n}"]}]} for n in range(24)]},
    "conditions that multiply": {"allOf": [
        {"if": {"required": [f"a{n}"]}, "then": {"required": [f"b{n}"]}} for n in range(24)]},
    "ten thousand values": {"enum": [f"value {n}" for n in range(10_000)]},
    "a pattern with huge counts": {"type": "string", "pattern": "^(a{1,999}){1,999}$"},
    "a pattern that doubles": {"type": "string", "pattern": "(a|b)*a(a|b){24}$"},
    "ten thousand references": chain(10_000),
    "names of 100 kB": {"properties": {"x" * 100_000: {}}},
    "48 nested optional objects": nested(48),
    "a constant of 100 kB": {"const": "z" * 100_000},
    "many patterns": {"patternProperties": {f"^k{n}.*x$": {} for n in range(60)}},
    "a reference in a circle": {"$ref": "#"},
    "numbers of any size": {"minimum": -1e308, "maximum": 1e308, "type": "number"},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_served_or_refused_by_a_report(name: str) -> None:
    warm_up()
    begun = time.thread_time()

    report = check_schema(name, HOSTILE[name], limits=Limits())

    assert report.how in {"automaton", "llguidance", "checked", "refused"}
    assert time.thread_time() - begun < 20  # a bound on runaway loops, not a measurement


def test_the_steps_of_a_compilation_are_a_limit() -> None:
    pattern = {"type": "string", "pattern": "(a|b)*a(a|b){11}$"}

    with pytest.raises(UnsupportedSchema, match="to compile"):
        plan(pattern, limits=Limits(steps=100))


@pytest.mark.parametrize("limits", [Limits(bytes=50), Limits(depth=2)], ids=["bytes", "depth"])
def test_size_and_depth_are_limits(limits: Limits) -> None:
    with pytest.raises(UnsupportedSchema):
        plan(nested(6), limits=limits)
