"""What the keywords of arrays and objects ask for, as terms."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from falsework.grammars.scalar_keywords import among, check, pattern_holds, size
from falsework.grammars.schema_documents import Subschema
from falsework.grammars.schema_terms import (
    ANYTHING,
    EVERYTHING,
    Arrays,
    Check,
    Contains,
    Layer,
    Node,
    Objects,
    Term,
    Terms,
    without,
)

if TYPE_CHECKING:
    from falsework.grammars.schema_algebra import Algebra


def array_terms(algebra: "Algebra", of: Subschema) -> Terms:
    """Return what the keywords of arrays ask for."""
    prefix, rest = items(algebra, of)
    low, high = size(of, "minItems") or 0, size(of, "maxItems")
    if high is not None and low > high:
        return without("array")
    contains: list[Contains] = []
    if "contains" in of and of.draft != "4":
        inside = algebra.document.child(of, "contains")
        counted = of.draft not in {"6", "7"}
        contains.append(
            Contains(
                algebra.node(inside),
                algebra.node(inside, False),
                1
                if not counted or size(of, "minContains") is None
                else size(of, "minContains") or 0,
                size(of, "maxContains") if counted else None,
                check(of, "contains"),
            )
        )
    unique = frozenset({check(of, "uniqueItems")} if of.get("uniqueItems") is True else ())
    told = ((prefix, rest),) if prefix or rest != ANYTHING else ()
    arrays = algebra.bounded_arrays(Arrays(told, low, high, tuple(contains), unique))
    return among("array", [Term(arrays)] if arrays else [])


def items(algebra: "Algebra", of: Subschema) -> tuple[tuple[Node, ...], Node]:
    """Return what holds for the first items, and for those behind them."""
    document = algebra.document
    said = of.get("items", True)
    if isinstance(said, list):
        keyword, behind = "items", "additionalItems"
    else:
        keyword, behind = "prefixItems", "items"
    first = of.get(keyword) if keyword == "items" or of.draft == "2020-12" else None
    prefix = tuple(
        algebra.node(document.child(of, keyword, str(n))) for n in range(len(first or ()))
    )
    rest = algebra.node(document.child(of, behind)) if behind in of else ANYTHING
    return prefix, rest


def object_terms(algebra: "Algebra", of: Subschema) -> Terms:
    """Return what the keywords of objects ask for."""
    layer, checks = members(algebra, of)
    low, high = size(of, "minProperties") or 0, size(of, "maxProperties")
    if high is not None and low > high:
        return without("object")
    keys = ANYTHING
    if "propertyNames" in of and of.draft != "4":
        keys = algebra.node(algebra.document.child(of, "propertyNames"))
    required = tuple(dict.fromkeys(of.get("required", ())))
    objects = Objects(
        (layer,) if layer else (),
        required,
        low,
        high,
        keys,
        check(of, "minProperties"),
        check(of, "maxProperties"),
    )
    if any(algebra.is_empty(algebra.member(objects, name)) for name in required):
        return without("object")
    return among("object", [Term(objects).checked(checks)])


def members(algebra: "Algebra", of: Subschema) -> tuple[Layer | None, list[Check]]:
    """Return what a schema says of an object's members; None: nothing."""
    document = algebra.document
    names = {
        name: algebra.node(document.child(of, "properties", name))
        for name in of.get("properties", {})
    }
    rest = ANYTHING
    if "additionalProperties" in of:
        rest = algebra.node(document.child(of, "additionalProperties"))
    patterns = []
    for pattern in of.get("patternProperties", {}):
        if not (
            pattern_holds(of, pattern, "patternProperties", algebra.budget)
            and pattern_holds(of, pattern, "patternProperties", algebra.budget, upper=True)
        ):
            return Layer(names), [check(of, "patternProperties")]
        inside = document.child(of, "patternProperties", pattern)
        patterns.append((pattern, algebra.node(inside)))
    others = "additionalProperties" in of
    if not names and not patterns and not others:
        return None, []
    return Layer(names, tuple(patterns), rest, others), []


def dependents(algebra: "Algebra", of: Subschema) -> Iterator[tuple[str, Terms, bool]]:
    """Yield each name, what an object that has it must be, and whether that is a schema."""
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        if keyword != "dependencies" and of.draft in {"4", "6", "7"}:
            continue
        for name, said in of.get(keyword, {}).items():
            if isinstance(said, str | list | tuple):
                names = (said,) if isinstance(said, str) else tuple(said)
                yield name, (Term(Objects(required=names)),), False
            else:
                inside = algebra.document.child(of, keyword, name)
                yield name, algebra.literal(inside, True), True


def absent(algebra: "Algebra", of: Subschema, name: str) -> Term:
    """Return the objects without a member of this name."""
    return Term(Objects((Layer({name: algebra.nothing(of)}),)))


DEPENDENTS_LIMIT = 64


def dependent_terms(algebra: "Algebra", of: Subschema) -> Terms:
    """Return what dependentRequired, dependentSchemas and dependencies ask for."""
    terms: Terms = EVERYTHING
    for name, then, _ in dependents(algebra, of):
        having = algebra.met((Term(Objects(required=(name,))),), then)
        further = algebra.met(terms, among("object", [absent(algebra, of, name), *having]))
        if len(further) > DEPENDENTS_LIMIT:
            keyword = next(
                k for k in ("dependentRequired", "dependentSchemas", "dependencies") if k in of
            )
            return tuple(term.checked([check(of, keyword)]) for term in terms)
        terms = further
    return terms
