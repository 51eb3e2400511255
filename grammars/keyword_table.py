"""How each keyword of JSON Schema is served: the table that docs/schemas.md is made from.

`python -m falsework.grammars.keyword_table` writes that page anew; a test holds each row to what
the code does, and the rows to the keywords that it reads.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from falsework.grammars.string_formats import CHECKED_FORMATS, STRING_FORMATS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "schemas.md"


class Row(NamedTuple):
    """A keyword: how it is said, when it is left to a check, a schema with a value in and out."""

    said: str
    checked: str
    schema: dict[str, Any]
    valid: Any
    invalid: Any


_NEVER = "never"
_OBJECT = {"type": "object"}
_ARRAY = {"type": "array"}

KEYWORD_ROWS: dict[str, Row] = {
    "type": Row("one type or a list of types", _NEVER, {"type": ["string", "null"]}, None, 1),
    "enum": Row("the values that the rest of the schema admits", _NEVER, {"enum": ["a", 1]}, 1, 2),
    "const": Row("the value", _NEVER, {"const": {"a": [1]}}, {"a": [1]}, {"a": [2]}),
    "minimum": Row("decimal arithmetic", _NEVER, {"type": "number", "minimum": 1.5}, 1.5, 1.4),
    "maximum": Row("decimal arithmetic", _NEVER, {"type": "integer", "maximum": 7}, 7, 8),
    "exclusiveMinimum": Row(
        "a number, or a boolean beside minimum (draft 4, OpenAPI 3.0)", _NEVER,
        {"type": "number", "minimum": 0, "exclusiveMinimum": True}, 0.1, 0,
    ),
    "exclusiveMaximum": Row(
        "a number, or a boolean beside maximum (draft 4, OpenAPI 3.0)", _NEVER,
        {"type": "number", "exclusiveMaximum": 3}, 2.9, 3,
    ),
    "multipleOf": Row(
        "by remainders", "steps of more than four digits",
        {"type": "number", "multipleOf": 0.25}, 1.75, 1.8,
    ),
    "minLength": Row("characters are counted; an escape is one", _NEVER,
                     {"type": "string", "minLength": 2}, "é😀", "é"),
    "maxLength": Row("characters are counted; an escape is one", _NEVER,
                     {"type": "string", "pattern": "^a", "maxLength": 2}, "a😀", "abc"),
    "pattern": Row(
        "ECMA 262, found anywhere; look-ahead and \\b too", "look-behind and backreferences",
        {"type": "string", "pattern": "^(?!ab)[a-c]+$"}, "acb", "abc",
    ),
    "format": Row(
        "the formats below; others are annotations", "regex",
        {"type": "string", "format": "date"}, "2024-02-29", "2023-02-29",
    ),
    "contentEncoding": Row(
        "base64 in draft 7; otherwise an annotation", _NEVER,
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string",
         "contentEncoding": "base64"}, "YQ==", "%",
    ),
    "contentMediaType": Row(
        _NEVER, "application/json in draft 7; otherwise an annotation",
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string",
         "contentMediaType": "application/json"}, "{}", "{",
    ),
    "items": Row("one schema, or a tuple (up to 2019-09)", _NEVER,
                 {**_ARRAY, "items": {"type": "integer"}}, [1, 2], [1, "2"]),
    "prefixItems": Row("each item by its schema", _NEVER,
                       {**_ARRAY, "prefixItems": [{"const": 1}]}, [1, "x"], [2]),
    "additionalItems": Row(
        "what follows a tuple", _NEVER,
        {**_ARRAY, "items": [{"const": 1}], "additionalItems": False}, [1], [1, 2],
    ),
    "minItems": Row("items are counted", _NEVER, {**_ARRAY, "minItems": 1}, [1], []),
    "maxItems": Row("items are counted", _NEVER, {**_ARRAY, "maxItems": 1}, [1], [1, 2]),
    "uniqueItems": Row(
        "items of up to 8 listed values, or at most one item", "all other items",
        {**_ARRAY, "items": {"enum": ["a", "b"]}, "uniqueItems": True}, ["b", "a"], ["a", "a"],
    ),
    "contains": Row(
        "with minContains and maxContains up to 400 places", "several in one, more places",
        {**_ARRAY, "contains": {"const": 5}}, [4, 5], [4],
    ),
    "minContains": Row(
        "with contains", "as contains",
        {**_ARRAY, "contains": {"const": 5}, "minContains": 2, "maxItems": 4}, [5, 4, 5], [5, 4],
    ),
    "maxContains": Row(
        "with contains", "as contains",
        {**_ARRAY, "contains": {"const": 5}, "maxContains": 1, "maxItems": 4}, [5, 4], [5, 5],
    ),
    "properties": Row("in the declared order", _NEVER,
                      {**_OBJECT, "properties": {"a": {"type": "null"}}}, {"a": None}, {"a": 1}),
    "required": Row("also of names that no property has", _NEVER,
                    {**_OBJECT, "required": ["a"]}, {"a": 1}, {}),
    "additionalProperties": Row(
        "behind the declared ones; without a word, see above", _NEVER,
        {**_OBJECT, "properties": {"a": {}}, "additionalProperties": {"type": "null"}},
        {"a": 1, "b": None}, {"b": 1},
    ),
    "patternProperties": Row(
        "names by their pattern, and by several at once", "patterns that aren't said",
        {**_OBJECT, "patternProperties": {"^x": {"type": "integer"}},
         "additionalProperties": False}, {"x1": 1}, {"y": 1},
    ),
    "propertyNames": Row("names by their schema", _NEVER,
                         {**_OBJECT, "propertyNames": {"pattern": "^[a-z]+$"}}, {"a": 1}, {"A": 1}),
    "minProperties": Row(
        "members are counted up to 64", "more than one member beyond the required and named ones",
        {**_OBJECT, "minProperties": 1}, {"a": 1}, {},
    ),
    "maxProperties": Row("members are counted up to 64", "more than 64",
                         {**_OBJECT, "maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}),
    "dependentRequired": Row("as alternatives", "many of them",
                             {**_OBJECT, "dependentRequired": {"a": ["b"]}}, {"b": 1}, {"a": 1}),
    "dependentSchemas": Row(
        "as alternatives", "many of them",
        {**_OBJECT, "dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1, "b": 2}, {"a": 1},
    ),
    "dependencies": Row("both of the above, in every draft", "many of them",
                        {**_OBJECT, "dependencies": {"a": ["b"]}}, {}, {"a": 1}),
    "allOf": Row("merged", "alternatives that multiply",
                 {"allOf": [{"type": "integer"}, {"minimum": 3}]}, 3, 2),
    "anyOf": Row("as alternatives", _NEVER, {"anyOf": [{"const": 1}, {"const": 2}]}, 2, 3),
    "oneOf": Row(
        "branches that exclude each other, or of which the others can be taken away",
        "what can't be taken away",
        {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]}, 1, 2,
    ),
    "not": Row("by the opposite of each keyword inside", "multipleOf, uniqueItems, "
               "patternProperties, additionalProperties, propertyNames, constant arrays or objects",
               {"not": {"type": ["string", "null"]}}, 1, "a"),
    "if": Row(
        "as two alternatives", "as not",
        {**_OBJECT, "if": {"required": ["a"]}, "then": {"required": ["b"]},
         "else": {"required": ["c"]}}, {"a": 1, "b": 1}, {"a": 1},
    ),
    "then": Row("with if", "as not", {"if": {"type": "integer"}, "then": {"minimum": 1}}, 1, 0),
    "else": Row("with if", "as not",
                {"if": {"type": "integer"}, "else": {"type": "null"}}, None, "a"),
    "$ref": Row(
        "inside the schema; recursion by llguidance", _NEVER,
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, None, 1,
    ),
    "$dynamicRef": Row(
        _NEVER, "always",
        {"$defs": {"a": {"$dynamicAnchor": "x", "type": "null"}}, "items": {"$dynamicRef": "#x"}},
        [None], None,
    ),
    "$recursiveRef": Row(
        _NEVER, "always",
        {"$schema": "https://json-schema.org/draft/2019-09/schema",
         "items": {"$recursiveRef": "#"}}, [[]], None,
    ),
    "unevaluatedProperties": Row(
        _NEVER, "always", {**_OBJECT, "properties": {"a": {}}, "unevaluatedProperties": False},
        {"a": 1}, None,
    ),
    "unevaluatedItems": Row(
        _NEVER, "always", {**_ARRAY, "prefixItems": [{}], "unevaluatedItems": False}, [1], None
    ),
}  # fmt: skip

_HEAD = """# How a JSON Schema is served

<!-- Written by python -m falsework.grammars.keyword_table; a test holds it to the code. -->

Every schema that is valid JSON Schema is taken: drafts 4, 6, 7, 2019-09 and 2020-12 by `$schema`
(without it, 2020-12) and OpenAPI 3.0's `nullable` and boolean `exclusiveMinimum` where no draft is
named. Unknown keywords are annotations. A schema is served in one of three ways:

- **automaton**: what may be said is exactly what the schema admits, in one spelling.
- **llguidance**: exact as well; for recursion and schemas whose automaton would be large.
- **checked**: keywords that decoding can't hold to are judged when the call is complete.

Refused is what is no JSON Schema, refers outside itself, admits nothing, or takes too long.

Narrower than the schema, where it harms nobody: members come in the declared order and other names
behind them, text has one spelling, numbers have at most 19 digits (15 beside an exclusive bound),
values without a schema nest to a depth of 4, those of members that nobody named to a depth of 1.
An object that a tool's parameters or a response_format describe by `properties`, without a word of
further ones, has no others; `additionalProperties: true` lets them in. Patterns are read as every
validator reads them: `\\w` and `\\d` are ASCII.

Of the JSON Schema Test Suite (drafts 4 to 2020-12, optional parts and formats too) nothing invalid
is let out; the valid instances that can't be said, and the schemas that are refused because they
refer outside themselves, are listed in `tests/grammars/schema_suite_restrictions.json`.

`bench/schemas.py` times schemas up to their first mask beside llguidance and xgrammar, over any
folder; `bench/fuzz_schemas.py` decodes random replies under them and judges each by two
validators.

`falsework schema check FILE` tells how each schema is served, `--openai-strict` whether OpenAI's
strict mode would take it, `--tools` reads tool lists, MCP listings and OpenAPI documents.

## Keywords

| keyword | by the automaton | left to a check |
|---|---|---|
"""


def page() -> str:
    """Return the reference page."""
    rows = [f"| `{name}` | {row.said} | {row.checked} |" for name, row in KEYWORD_ROWS.items()]
    formats = [f"| `{name}` | {one.source} |" for name, one in STRING_FORMATS.items()]
    formats += [f"| `{name}` | checked |" for name in sorted(CHECKED_FORMATS)]
    examples = [
        f"| `{name}` | `{json.dumps(row.schema)}` | `{json.dumps(row.valid, ensure_ascii=False)}` |"
        for name, row in KEYWORD_ROWS.items()
    ]
    escaped = [line.replace("\\b", "`\\b`") for line in rows]
    return "\n".join([
        _HEAD + "\n".join(escaped), "", "## Formats", "",
        "Where validators differ, a format is the narrower reading: no leap seconds, ASCII hosts.",
        "", "| format | source |", "|---|---|", *formats, "", "## Examples", "",
        "| keyword | schema | may be said |", "|---|---|---|", *examples, "",
    ])  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page())
