"""What each keyword of JSON Schema asks for, as terms."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from falsework.grammars.container_keywords import array_terms, dependent_terms, object_terms
from falsework.grammars.scalar_keywords import (
    check,
    const_terms,
    enum_terms,
    number_terms,
    string_terms,
    type_terms,
)
from falsework.grammars.schema_documents import Subschema
from falsework.grammars.schema_terms import (
    EVERYTHING,
    Terms,
    of_type,
)

if TYPE_CHECKING:
    from falsework.grammars.schema_algebra import Algebra


Reading = Callable[["Algebra", Subschema], Terms]


def _reference(keyword: str) -> Reading:
    def read(algebra: "Algebra", of: Subschema) -> Terms:
        return algebra.literal(algebra.document.followed(of, keyword), True)

    return read


def branches(algebra: "Algebra", of: Subschema, keyword: str) -> list[Subschema]:
    """Return the schemas of allOf, anyOf or oneOf."""
    return [algebra.document.child(of, keyword, str(n)) for n in range(len(of.get(keyword)))]


def _all_of(algebra: "Algebra", of: Subschema) -> Terms:
    terms: Terms = EVERYTHING
    for one in branches(algebra, of, "allOf"):
        terms = algebra.narrowed(terms, algebra.literal(one, True), check(of, "allOf"))
    return terms


def _any_of(algebra: "Algebra", of: Subschema) -> Terms:
    return algebra.union(algebra.literal(one, True) for one in branches(algebra, of, "anyOf"))


def _one_of(algebra: "Algebra", of: Subschema) -> Terms:
    every = branches(algebra, of, "oneOf")
    terms = [algebra.literal(one, True) for one in every]
    parts = []
    for number, one in enumerate(terms):
        meeting = [
            other
            for k, other in enumerate(every)
            if k != number and algebra.met(one, algebra.loosened(terms[k]))
        ]
        parts.append(algebra.excluding(one, meeting, check(of, "oneOf")))
    return algebra.union(parts)


def _not(algebra: "Algebra", of: Subschema) -> Terms:
    inside = algebra.document.child(of, "not")
    return algebra.excluding(EVERYTHING, [inside], check(of, "not"))


def _if(algebra: "Algebra", of: Subschema) -> Terms:
    if of.draft in {"4", "6"}:
        return EVERYTHING
    document = algebra.document
    condition = document.child(of, "if")
    then, otherwise = (
        algebra.literal(document.child(of, keyword), True) if keyword in of else EVERYTHING
        for keyword in ("then", "else")
    )
    if then is otherwise is EVERYTHING:
        return EVERYTHING
    holding = algebra.met(algebra.literal(condition, True), then)
    return algebra.union([holding, algebra.excluding(otherwise, [condition], check(of, "if"))])


def _unevaluated(keyword: str, typename: str) -> Reading:
    def read(_: "Algebra", of: Subschema) -> Terms:
        if of.draft in {"4", "6", "7"} or of.get(keyword) in (True, {}):
            return EVERYTHING
        return tuple(
            term.checked([check(of, keyword)]) if term in of_type(typename) else term
            for term in EVERYTHING
        )

    return read


def _dynamic(keyword: str) -> Reading:
    def read(_: "Algebra", of: Subschema) -> Terms:
        return tuple(term.checked([check(of, keyword)]) for term in EVERYTHING)

    return read


READINGS: tuple[tuple[tuple[str, ...], Reading], ...] = (
    (("$ref",), _reference("$ref")),
    (("$dynamicRef",), _dynamic("$dynamicRef")),
    (("$recursiveRef",), _dynamic("$recursiveRef")),
    (("type",), type_terms),
    (("enum",), enum_terms),
    (("const",), const_terms),
    (
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        number_terms,
    ),
    (
        ("minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType"),
        string_terms,
    ),
    (
        (
            "items",
            "prefixItems",
            "additionalItems",
            "minItems",
            "maxItems",
            "uniqueItems",
            "contains",
            "minContains",
            "maxContains",
        ),
        array_terms,
    ),
    (
        (
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
        ),
        object_terms,
    ),
    (("dependentRequired", "dependentSchemas", "dependencies"), dependent_terms),
    (("allOf",), _all_of),
    (("anyOf",), _any_of),
    (("oneOf",), _one_of),
    (("not",), _not),
    (("if",), _if),
    (("unevaluatedProperties",), _unevaluated("unevaluatedProperties", "object")),
    (("unevaluatedItems",), _unevaluated("unevaluatedItems", "array")),
)


KEYWORDS = frozenset(keyword for keywords, _ in READINGS for keyword in keywords) | {"then", "else"}
"""All keywords that say something; all others are annotations."""


_NUMBERS = {keyword: n for n, (keywords, _) in enumerate(READINGS) for keyword in keywords}


def readings(of: Subschema) -> Iterator[tuple[str, Reading]]:
    """Yield the readings of the keywords that stand in a schema, each with the first of them."""
    standing = {_NUMBERS[keyword] for keyword in of.keywords if keyword in _NUMBERS}
    for number in sorted(standing):
        keywords, reading = READINGS[number]
        first = next(keyword for keyword in keywords if keyword in of)
        if not (first == "const" and of.draft == "4"):
            yield first, reading
