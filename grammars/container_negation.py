"""The opposite of the keywords of arrays and objects."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from falsework.grammars.container_keywords import absent, items
from falsework.grammars.scalar_keywords import check, size
from falsework.grammars.schema_documents import Subschema
from falsework.grammars.schema_terms import (
    ANYTHING,
    EVERYTHING,
    Arrays,
    Contains,
    Layer,
    Objects,
    Term,
    of_type,
)

if TYPE_CHECKING:
    from falsework.grammars.schema_algebra import Algebra


Opposite = Callable[["Algebra", Subschema], Iterable[Term]]


def left_to_check(keyword: str, typename: str | None) -> Opposite:
    """Return the opposite of a keyword that isn't said: all values of the type, noted."""

    def said(_: "Algebra", of: Subschema) -> Iterable[Term]:
        terms = EVERYTHING if typename is None else of_type(typename)
        return [term.checked([check(of, keyword)]) for term in terms]

    return said


def _items(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    prefix, rest = items(algebra, of)
    for index, node in enumerate(prefix):
        if node != ANYTHING:
            before = (ANYTHING,) * index
            wrong = tuple((one, not holds) for one, holds in node)
            yield Term(Arrays((((*before, wrong), ANYTHING),), index + 1))
    if rest != ANYTHING:
        wrong = tuple((one, not holds) for one, holds in rest)
        if prefix:
            term = Term(Arrays(low=len(prefix) + 1))
            yield term.checked([check(of, "items")])
        else:
            found = Contains(wrong, rest, check=check(of, "items"))
            yield Term(Arrays(low=1, contains=(found,)))


def _min_items(_: "Algebra", of: Subschema) -> Iterable[Term]:
    low = size(of, "minItems") or 0
    return [Term(Arrays(high=low - 1))] if low else []


def _max_items(_: "Algebra", of: Subschema) -> Iterable[Term]:
    return [Term(Arrays(low=(size(of, "maxItems") or 0) + 1))]


def _unique(_: "Algebra", of: Subschema) -> Iterable[Term]:
    if of.get("uniqueItems") is True:
        yield Term(Arrays(low=2), frozenset({check(of, "uniqueItems")}))


def _contains(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    if of.draft == "4":
        return
    if "minContains" in of or "maxContains" in of:
        yield from left_to_check("contains", "array")(algebra, of)
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
    return [absent(algebra, of, name) for name in of.get("required")]


def _pattern_properties(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    if all(one in (True, {}) for one in of.get("patternProperties").values()):
        return []
    return left_to_check("patternProperties", "object")(algebra, of)


def _additional(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    if of.get("additionalProperties") in (True, {}):
        return []
    return left_to_check("additionalProperties", "object")(algebra, of)


def _min_properties(_: "Algebra", of: Subschema) -> Iterable[Term]:
    low = size(of, "minProperties") or 0
    high_check = check(of, "minProperties")
    return [Term(Objects(high=low - 1, high_check=high_check))] if low else []


def _max_properties(_: "Algebra", of: Subschema) -> Iterable[Term]:
    high = size(of, "maxProperties") or 0
    return [Term(Objects(low=high + 1, low_check=check(of, "maxProperties")))]


def _dependents(algebra: "Algebra", of: Subschema) -> Iterable[Term]:
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        if keyword != "dependencies" and of.draft in {"4", "6", "7"}:
            continue
        for name, said in of.get(keyword, {}).items():
            having = (Term(Objects(required=(name,))),)
            if isinstance(said, str | list | tuple):
                wrong: Iterable[Term] = [
                    absent(algebra, of, one) for one in ((said,) if isinstance(said, str) else said)
                ]
            else:
                wrong = algebra.literal(algebra.document.child(of, keyword, name), False)
            yield from algebra.met(having, tuple(wrong))


CONTAINER_OPPOSITES: dict[str, Opposite] = {
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
    "propertyNames": left_to_check("propertyNames", "object"),
    "minProperties": _min_properties,
    "maxProperties": _max_properties,
    "dependentRequired": _dependents,
    "dependentSchemas": lambda algebra, of: (
        [] if "dependentRequired" in of else _dependents(algebra, of)
    ),
    "dependencies": lambda algebra, of: (
        [] if {"dependentRequired", "dependentSchemas"} & of.keywords else _dependents(algebra, of)
    ),
    "unevaluatedProperties": left_to_check("unevaluatedProperties", "object"),
    "unevaluatedItems": left_to_check("unevaluatedItems", "array"),
}
