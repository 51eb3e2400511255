"""The opposite of a schema: the values that at least one of its keywords refuses."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from falsework.grammars import schema_keywords as keywords
from falsework.grammars.numbers import Numbers, exact
from falsework.grammars.schema_documents import REF_ALONE, Subschema
from falsework.grammars.schema_terms import (
    ANYTHING,
    EVERYTHING,
    Arrays,
    Booleans,
    Constants,
    Contains,
    Layer,
    Null,
    Objects,
    Term,
    Terms,
    of_type,
    type_of,
)
from falsework.grammars.string_formats import CHECKED_FORMATS, STRING_FORMATS
from falsework.grammars.strings import Rule, Strings

if TYPE_CHECKING:
    from falsework.grammars.schema_algebra import Algebra

Opposite = Callable[["Algebra", Subschema], Iterable[Term]]

ONE_OF_LIMIT = 4
"""How many branches an oneOf may have for its opposite to be said."""


def negated(algebra: "Algebra", of: Subschema) -> Terms:
    """Return the values that a schema refuses, noted where that isn't exact."""
    if of.draft in REF_ALONE and isinstance(of.get("$ref"), str):
        return algebra.literal(algebra.document.followed(of, "$ref"), False)
    parts = [tuple(said(algebra, of)) for keyword, said in _OPPOSITES.items() if keyword in of]
    return algebra.union(parts)


def _left_to_check(keyword: str, typename: str | None) -> Opposite:
    """Return the opposite of a keyword that isn't said: all values of the type, noted."""

    def said(_: "Algebra", of: Subschema) -> Iterable[Term]:
        terms = EVERYTHING if typename is None else of_type(typename)
        return [term.checked([keywords.check(of, keyword)]) for term in terms]

    return said


def _reference(algebra: "Algebra", of: Subschema) -> Terms:
    return algebra.literal(algebra.document.followed(of, "$ref"), False)


def _type(_: "Algebra", of: Subschema) -> Iterable[Term]:
    said = of.get("type")
    types = {said} if isinstance(said, str) else set(said)
    for term in EVERYTHING:
        typename = type_of(term.value)
        if typename in types:
            continue
        if typename == "number" and "integer" in types:
            yield Term(Numbers(kind="broken"))
        else:
            yield term


def _unlisted(of: Subschema, values: Iterable[Any], keyword: str) -> Iterable[Term]:
    """Return all values but the listed ones."""
    listed = {type_of(term.value): term.value for term in keywords.listed(values)}
    for term in EVERYTHING:
        value = listed.get(type_of(term.value))
        if value is None:
            yield term
        elif isinstance(value, Strings):
            yield Term(Strings(excluded=value.values or frozenset()))
        elif isinstance(value, Numbers):
            yield Term(Numbers(excluded=value.values or frozenset()))
        elif isinstance(value, Booleans):
            left = Booleans().values - value.values
            yield from [Term(Booleans(left))] if left else []
        elif isinstance(value, Constants):
            yield term.checked([keywords.check(of, keyword)])
        else:
            assert isinstance(value, Null)


def _enum(_: "Algebra", of: Subschema) -> Iterable[Term]:
    return _unlisted(of, of.get("enum"), "enum")


def _const(_: "Algebra", of: Subschema) -> Iterable[Term]:
    return [] if of.draft == "4" else _unlisted(of, [of.get("const")], "const")


def _minimum(_: "Algebra", of: Subschema) -> Iterable[Term]:
    inclusive = of.get("exclusiveMinimum") is not True
    yield Term(Numbers(high=exact(of.get("minimum")), high_exclusive=inclusive))


def _maximum(_: "Algebra", of: Subschema) -> Iterable[Term]:
    inclusive = of.get("exclusiveMaximum") is not True
    yield Term(Numbers(exact(of.get("maximum")), low_exclusive=inclusive))


def _exclusive_minimum(_: "Algebra", of: Subschema) -> Iterable[Term]:
    if not isinstance(of.get("exclusiveMinimum"), bool):
        yield Term(Numbers(high=exact(of.get("exclusiveMinimum"))))


def _exclusive_maximum(_: "Algebra", of: Subschema) -> Iterable[Term]:
    if not isinstance(of.get("exclusiveMaximum"), bool):
        yield Term(Numbers(exact(of.get("exclusiveMaximum"))))


def _min_length(_: "Algebra", of: Subschema) -> Iterable[Term]:
    low = keywords.size(of, "minLength") or 0
    return [Term(Strings(high=low - 1))] if low else []


def _max_length(_: "Algebra", of: Subschema) -> Iterable[Term]:
    return [Term(Strings((keywords.size(of, "maxLength") or 0) + 1))]


def _pattern(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    pattern = of.get("pattern")
    if keywords.pattern_holds(of, pattern, "pattern", algebra.budget, upper=True):
        return [Term(Strings(rules=frozenset({Rule("pattern", pattern, False)})))]
    return _left_to_check("pattern", "string")(algebra, of)


def _format(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    name = of.get("format")
    if name not in STRING_FORMATS:
        return _left_to_check("format", "string")(algebra, of) if name in CHECKED_FORMATS else []
    term = Term(Strings(rules=frozenset({Rule("format", name, False)})))
    return [term if STRING_FORMATS[name].certain else term.checked([keywords.check(of, "format")])]


def _items(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    prefix, rest = keywords.items(algebra, of)
    for index, node in enumerate(prefix):
        if node != ANYTHING:
            before = (ANYTHING,) * index
            wrong = tuple((one, not holds) for one, holds in node)
            yield Term(Arrays((((*before, wrong), ANYTHING),), index + 1))
    if rest != ANYTHING:
        wrong = tuple((one, not holds) for one, holds in rest)
        if prefix:
            term = Term(Arrays(low=len(prefix) + 1))
            yield term.checked([keywords.check(of, "items")])
        else:
            found = Contains(wrong, rest, check=keywords.check(of, "items"))
            yield Term(Arrays(low=1, contains=(found,)))


def _min_items(_: "Algebra", of: Subschema) -> Iterable[Term]:
    low = keywords.size(of, "minItems") or 0
    return [Term(Arrays(high=low - 1))] if low else []


def _max_items(_: "Algebra", of: Subschema) -> Iterable[Term]:
    return [Term(Arrays(low=(keywords.size(of, "maxItems") or 0) + 1))]


def _unique(_: "Algebra", of: Subschema) -> Iterable[Term]:
    if of.get("uniqueItems") is True:
        yield Term(Arrays(low=2), frozenset({keywords.check(of, "uniqueItems")}))


def _contains(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    if of.draft == "4":
        return
    if "minContains" in of or "maxContains" in of:
        yield from _left_to_check("contains", "array")(algebra, of)
        return
    inside = algebra.document.child(of, "contains")
    arrays = algebra.bounded_arrays(Arrays((((), algebra.node(inside, False)),)))
    yield from [Term(arrays)] if arrays else []


def _properties(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    for name in of.get("properties", {}):
        inside = algebra.document.child(of, "properties", name)
        if inside.schema in (True, {}):
            continue
        wrong = algebra.node(inside, False)
        if not algebra.is_empty(wrong):
            yield Term(Objects((Layer({name: wrong}),), (name,)))


def _required(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    return [keywords.absent(algebra, of, name) for name in of.get("required")]


def _pattern_properties(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    if all(one in (True, {}) for one in of.get("patternProperties").values()):
        return []
    return _left_to_check("patternProperties", "object")(algebra, of)


def _additional(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    if of.get("additionalProperties") in (True, {}):
        return []
    return _left_to_check("additionalProperties", "object")(algebra, of)


def _min_properties(_: "Algebra", of: Subschema) -> Iterable[Term]:
    low = keywords.size(of, "minProperties") or 0
    high_check = keywords.check(of, "minProperties")
    return [Term(Objects(high=low - 1, high_check=high_check))] if low else []


def _max_properties(_: "Algebra", of: Subschema) -> Iterable[Term]:
    high = keywords.size(of, "maxProperties") or 0
    return [Term(Objects(low=high + 1, low_check=keywords.check(of, "maxProperties")))]


def _dependents(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        if keyword != "dependencies" and of.draft in {"4", "6", "7"}:
            continue
        for name, said in of.get(keyword, {}).items():
            having = (Term(Objects(required=(name,))),)
            if isinstance(said, str | list | tuple):
                wrong: Iterable[Term] = [
                    keywords.absent(algebra, of, one)
                    for one in ((said,) if isinstance(said, str) else said)
                ]
            else:
                wrong = algebra.literal(algebra.document.child(of, keyword, name), False)
            yield from algebra.met(having, tuple(wrong))


def _all_of(algebra: "Algebra", of: Subschema) -> Terms:
    every = keywords.branches(algebra, of, "allOf")
    return algebra.union(algebra.literal(one, False) for one in every)


def _any_of(algebra: "Algebra", of: Subschema) -> Terms:
    return _none(algebra, keywords.branches(algebra, of, "anyOf"))


def _none(algebra: "Algebra", every: list[Subschema]) -> Terms:
    terms: Terms = EVERYTHING
    for one in every:
        terms = algebra.met(terms, algebra.literal(one, False))
    return terms


def _one_of(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    every = keywords.branches(algebra, of, "oneOf")
    if len(every) > ONE_OF_LIMIT:
        return _left_to_check("oneOf", None)(algebra, of)
    pairs = [
        algebra.met(algebra.literal(one, True), algebra.literal(other, True))
        for number, one in enumerate(every)
        for other in every[:number]
    ]
    return algebra.union([_none(algebra, every), *pairs])


def _not(algebra: "Algebra", of: Subschema) -> Terms:
    return algebra.literal(algebra.document.child(of, "not"), True)


def _if(algebra: "Algebra", of: Subschema) -> Terms:
    if of.draft in {"4", "6"}:
        return ()
    document = algebra.document
    condition = document.child(of, "if")
    parts = [
        algebra.met(
            algebra.literal(condition, holds), algebra.literal(document.child(of, keyword), False)
        )
        for keyword, holds in (("then", True), ("else", False))
        if keyword in of
    ]
    return algebra.union(parts)


_OPPOSITES: dict[str, Opposite] = {
    "$ref": _reference,
    "$dynamicRef": _left_to_check("$dynamicRef", None),
    "$recursiveRef": _left_to_check("$recursiveRef", None),
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minimum": _minimum,
    "maximum": _maximum,
    "exclusiveMinimum": _exclusive_minimum,
    "exclusiveMaximum": _exclusive_maximum,
    "multipleOf": _left_to_check("multipleOf", "number"),
    "minLength": _min_length,
    "maxLength": _max_length,
    "pattern": _pattern,
    "format": _format,
    "prefixItems": lambda algebra, of: [] if "items" in of else _items(algebra, of),
    "items": _items,
    "minItems": _min_items,
    "maxItems": _max_items,
    "uniqueItems": _unique,
    "contains": _contains,
    "properties": _properties,
    "required": _required,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "propertyNames": _left_to_check("propertyNames", "object"),
    "minProperties": _min_properties,
    "maxProperties": _max_properties,
    "dependentRequired": _dependents,
    "dependentSchemas": lambda algebra, of: (
        [] if "dependentRequired" in of else _dependents(algebra, of)
    ),
    "dependencies": lambda algebra, of: (
        []
        if {"dependentRequired", "dependentSchemas"} & of.schema.keys()
        else _dependents(algebra, of)
    ),
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "unevaluatedProperties": _left_to_check("unevaluatedProperties", "object"),
    "unevaluatedItems": _left_to_check("unevaluatedItems", "array"),
}
