"""The opposite of a schema: the values that at least one of its keywords refuses."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from falsework.grammars.container_negation import CONTAINER_OPPOSITES, Opposite, left_to_check
from falsework.grammars.numbers import Numbers, exact
from falsework.grammars.scalar_keywords import check, listed, pattern_holds, size
from falsework.grammars.schema_documents import REF_ALONE, Subschema
from falsework.grammars.schema_keywords import branches
from falsework.grammars.schema_terms import (
    EVERYTHING,
    Booleans,
    Constants,
    Null,
    Term,
    Terms,
    type_of,
)
from falsework.grammars.string_formats import CHECKED_FORMATS, STRING_FORMATS
from falsework.grammars.strings import Rule, Strings

if TYPE_CHECKING:
    from falsework.grammars.schema_algebra import Algebra


ONE_OF_LIMIT = 4
"""How many branches an oneOf may have for its opposite to be said."""


def negated(algebra: "Algebra", of: Subschema) -> Terms:
    """Return the values that a schema refuses, noted where that isn't exact."""
    if of.draft in REF_ALONE and isinstance(of.get("$ref"), str):
        return algebra.literal(algebra.document.followed(of, "$ref"), False)
    parts = [tuple(said(algebra, of)) for keyword, said in _OPPOSITES.items() if keyword in of]
    return algebra.union(parts)


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
    known = {type_of(term.value): term.value for term in listed(values)}
    for term in EVERYTHING:
        value = known.get(type_of(term.value))
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
            yield term.checked([check(of, keyword)])
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
    low = size(of, "minLength") or 0
    return [Term(Strings(high=low - 1))] if low else []


def _max_length(_: "Algebra", of: Subschema) -> Iterable[Term]:
    return [Term(Strings((size(of, "maxLength") or 0) + 1))]


def _pattern(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    pattern = of.get("pattern")
    if pattern_holds(of, pattern, "pattern", algebra.budget, upper=True):
        return [Term(Strings(rules=frozenset({Rule("pattern", pattern, False)})))]
    return left_to_check("pattern", "string")(algebra, of)


def _format(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    name = of.get("format")
    if name not in STRING_FORMATS:
        return left_to_check("format", "string")(algebra, of) if name in CHECKED_FORMATS else []
    term = Term(Strings(rules=frozenset({Rule("format", name, False)})))
    return [term if STRING_FORMATS[name].certain else term.checked([check(of, "format")])]


def _all_of(algebra: "Algebra", of: Subschema) -> Terms:
    every = branches(algebra, of, "allOf")
    return algebra.union(algebra.literal(one, False) for one in every)


def _any_of(algebra: "Algebra", of: Subschema) -> Terms:
    return _none(algebra, branches(algebra, of, "anyOf"))


def _none(algebra: "Algebra", every: list[Subschema]) -> Terms:
    terms: Terms = EVERYTHING
    for one in every:
        terms = algebra.met(terms, algebra.literal(one, False))
    return terms


def _one_of(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    every = branches(algebra, of, "oneOf")
    if len(every) > ONE_OF_LIMIT:
        return left_to_check("oneOf", None)(algebra, of)
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
    "$dynamicRef": left_to_check("$dynamicRef", None),
    "$recursiveRef": left_to_check("$recursiveRef", None),
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minimum": _minimum,
    "maximum": _maximum,
    "exclusiveMinimum": _exclusive_minimum,
    "exclusiveMaximum": _exclusive_maximum,
    "multipleOf": left_to_check("multipleOf", "number"),
    "minLength": _min_length,
    "maxLength": _max_length,
    "pattern": _pattern,
    "format": _format,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    **CONTAINER_OPPOSITES,
}
