"""What each keyword of JSON Schema asks for, as terms."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from falsework.grammars import ecma_regex
from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import TooManyCharacterStates
from falsework.grammars.ecma_regex import InvalidPattern, UnsupportedPattern
from falsework.grammars.numbers import Numbers, NumberTooComplex, check_step, exact
from falsework.grammars.pattern_dfa import pattern_dfa
from falsework.grammars.schema_documents import Subschema
from falsework.grammars.schema_errors import escape_pointer
from falsework.grammars.schema_terms import (
    ANYTHING,
    EVERYTHING,
    Arrays,
    Booleans,
    Check,
    Constants,
    Contains,
    Layer,
    Node,
    Null,
    Objects,
    Term,
    Terms,
    json_text,
    of_type,
    without,
)
from falsework.grammars.string_formats import CHECKED_FORMATS, STRING_FORMATS
from falsework.grammars.strings import Rule, Strings

if TYPE_CHECKING:
    from falsework.grammars.schema_algebra import Algebra

Reading = Callable[["Algebra", Subschema], Terms]


def check(subschema: Subschema, keyword: str) -> Check:
    """Return the note that a keyword is left to a check."""
    return keyword, f"{subschema.pointer}/{escape_pointer(keyword)}"


def among(typename: str, terms: Iterable[Term]) -> Terms:
    """Return what a keyword of one type asks for: other types are free."""
    return (*terms, *without(typename))


def listed(values: Iterable[Any]) -> Terms:
    """Return the terms of exactly these JSON values."""
    booleans: set[bool] = set()
    numbers, strings = set(), set()
    constants: dict[str, set[str]] = {"array": set(), "object": set()}
    null = False
    for value in values:
        if value is None:
            null = True
        elif isinstance(value, bool):
            booleans.add(value)
        elif isinstance(value, str):
            strings.add(value)
        elif isinstance(value, int | float):
            numbers.add(exact(value))
        else:
            typename = "array" if isinstance(value, list | tuple) else "object"
            constants[typename].add(json_text(value))
    found: list[Any] = [Constants(t, frozenset(texts)) for t, texts in constants.items() if texts]
    found += [Strings(values=frozenset(strings))] if strings else []
    found += [Numbers(values=frozenset(numbers))] if numbers else []
    found += [Booleans(frozenset(booleans))] if booleans else []
    found += [Null()] if null else []
    return tuple(Term(value) for value in found)


def _type(_: "Algebra", of: Subschema) -> Terms:
    said = of.get("type")
    types = [said] if isinstance(said, str) else list(said)
    if "number" in types:
        types = [one for one in types if one != "integer"]
    return tuple(term for one in types for term in of_type(one))


def _enum(algebra: "Algebra", of: Subschema) -> Terms:
    return _remembered(algebra, of.get("enum"))


def _const(algebra: "Algebra", of: Subschema) -> Terms:
    return _remembered(algebra, [of.get("const")])


def _remembered(algebra: "Algebra", values: Iterable[Any]) -> Terms:
    """Return the terms of listed values; arrays and objects are said as they are listed."""
    for value in values:
        if isinstance(value, Mapping | list | tuple):
            algebra.constants.setdefault(json_text(value), value)
    return listed(values)


def bounds(of: Subschema) -> Numbers | None:
    """Return the numbers between the bounds of a schema; None: there are none."""
    numbers: Numbers | None = Numbers()
    for keyword, made in _BOUNDS.items():
        if isinstance(of.get(keyword), int | float) and not isinstance(of.get(keyword), bool):
            numbers = numbers and numbers.intersection(made(of))
    return numbers


_BOUNDS: dict[str, Callable[[Subschema], Numbers]] = {
    "minimum": lambda of: Numbers(
        exact(of.get("minimum")), low_exclusive=of.get("exclusiveMinimum") is True
    ),
    "maximum": lambda of: Numbers(
        high=exact(of.get("maximum")), high_exclusive=of.get("exclusiveMaximum") is True
    ),
    "exclusiveMinimum": lambda of: Numbers(exact(of.get("exclusiveMinimum")), low_exclusive=True),
    "exclusiveMaximum": lambda of: Numbers(
        high=exact(of.get("exclusiveMaximum")), high_exclusive=True
    ),
}


def _numbers(_: "Algebra", of: Subschema) -> Terms:
    numbers = bounds(of)
    checks: list[Check] = []
    if "multipleOf" in of and numbers:
        step = Numbers(step=exact(of.get("multipleOf")))
        try:
            check_step(step)
            numbers = numbers.intersection(step)
        except NumberTooComplex:
            checks.append(check(of, "multipleOf"))
    return among("number", [Term(numbers).checked(checks)] if numbers else [])


def _strings(algebra: "Algebra", of: Subschema) -> Terms:
    rules: list[Rule] = []
    checks: list[Check] = []
    if "pattern" in of:
        if pattern_holds(of, of.get("pattern"), "pattern", algebra.budget):
            rules.append(Rule("pattern", of.get("pattern")))
        else:
            checks.append(check(of, "pattern"))
    if of.get("format") in STRING_FORMATS:
        rules.append(Rule("format", of.get("format")))
    elif of.get("format") in CHECKED_FORMATS:
        checks.append(check(of, "format"))
    low, high = size(of, "minLength") or 0, size(of, "maxLength")
    strings = Strings(0, None, frozenset(map(counted, rules))).intersection(Strings(low, high))
    for rule in rules:
        strings = strings and strings.intersection(counted_lengths(rule))
    return among("string", [Term(strings).checked(checks)] if strings else [])


_COUNTED = re.compile(r"(?P<before>\^.+)\{(?P<low>\d+)(?P<comma>,?)(?P<high>\d*)\}\$", re.DOTALL)


def _repeated_class(rule: Rule) -> re.Match[str] | None:
    """Return the match where a pattern is one class and a count, as in ^[a-z]{1,64}$."""
    found = _COUNTED.fullmatch(rule.text) if rule.keyword == "pattern" else None
    tree = ecma_regex.parse(rule.text) if found else None
    single = (
        isinstance(tree, ecma_regex.Sequence)
        and len(tree.parts) == 3  # noqa: PLR2004 - ^, the class, $
        and isinstance(tree.parts[1], ecma_regex.Repeat)
        and isinstance(tree.parts[1].part, ecma_regex.Characters)
    )
    return found if single else None


def counted(rule: Rule) -> Rule:
    """Return the rule without the count of its class, which is one of lengths."""
    found = _repeated_class(rule)
    return Rule("pattern", f"{found['before']}*$") if found else rule


def counted_lengths(rule: Rule) -> Strings:
    """Return the lengths that such a count allows."""
    found = _repeated_class(rule)
    if found is None:
        return Strings()
    low = int(found["low"])
    return Strings(
        low, low if not found["comma"] else int(found["high"]) if found["high"] else None
    )


def pattern_holds(
    of: Subschema, pattern: str, keyword: str, budget: Budget, *, upper: bool = False
) -> bool:
    """Tell whether an automaton says a pattern; raise UnsupportedSchema for what is none."""
    try:
        pattern_dfa(pattern, budget, upper=upper)
    except (UnsupportedPattern, InvalidPattern, TooManyCharacterStates) as fault:
        try:
            jsonschema_rs.validator_for({"pattern": pattern})
        except ValueError:
            why = str(fault) or "it is too large"
            msg = f"'{pattern[:200]}' can't be read as a regular expression of ECMA 262: {why}"
            raise of.error(msg, keyword) from None
        return False
    return True


def may_match(pattern: str, name: str, budget: Budget) -> bool:
    """Tell whether any reading of a pattern matches a name."""
    return pattern_dfa(pattern, budget, upper=True).accepts(name)


def matches(pattern: str, name: str, budget: Budget) -> bool:
    """Tell whether every reading of a pattern matches a name."""
    return pattern_dfa(pattern, budget).accepts(name)


def size(of: Subschema, keyword: str) -> int | None:
    """Return a count that a schema gives (2.0 is 2)."""
    said = of.get(keyword)
    return None if said is None else int(said)


def _arrays(algebra: "Algebra", of: Subschema) -> Terms:
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


def _objects(algebra: "Algebra", of: Subschema) -> Terms:
    layer, checks = members(algebra, of)
    low, high = size(of, "minProperties") or 0, size(of, "maxProperties")
    if high is not None and low > high:
        return without("object")
    keys = ANYTHING
    if "propertyNames" in of and of.draft != "4":
        keys = algebra.node(algebra.document.child(of, "propertyNames"))
    required = tuple(dict.fromkeys(of.get("required", ())))
    objects = Objects(
        (layer,) if layer else (), required, low, high, keys,
        check(of, "minProperties"), check(of, "maxProperties"),
    )  # fmt: skip
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
    if not names and not patterns and rest == ANYTHING:
        return None, []
    return Layer(names, tuple(patterns), rest), []


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


def _dependents(algebra: "Algebra", of: Subschema) -> Terms:
    terms: Terms = EVERYTHING
    for name, then, _ in dependents(algebra, of):
        having = algebra.met((Term(Objects(required=(name,))),), then)
        further = algebra.met(terms, among("object", [absent(algebra, of, name), *having]))
        if len(further) > DEPENDENTS_LIMIT:
            keyword = next(k for k in ("dependentRequired", "dependentSchemas", "dependencies")
                           if k in of)  # fmt: skip
            return tuple(term.checked([check(of, keyword)]) for term in terms)
        terms = further
    return terms


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
            other for k, other in enumerate(every)
            if k != number and algebra.met(one, algebra.loosened(terms[k]))
        ]  # fmt: skip
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
    (("type",), _type),
    (("enum",), _enum),
    (("const",), _const),
    (
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        _numbers,
    ),
    (("minLength", "maxLength", "pattern", "format"), _strings),
    (
        ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems",
         "contains", "minContains", "maxContains"),
        _arrays,
    ),
    (
        ("properties", "required", "additionalProperties", "patternProperties", "propertyNames",
         "minProperties", "maxProperties"),
        _objects,
    ),
    (("dependentRequired", "dependentSchemas", "dependencies"), _dependents),
    (("allOf",), _all_of),
    (("anyOf",), _any_of),
    (("oneOf",), _one_of),
    (("not",), _not),
    (("if",), _if),
    (("unevaluatedProperties",), _unevaluated("unevaluatedProperties", "object")),
    (("unevaluatedItems",), _unevaluated("unevaluatedItems", "array")),
)  # fmt: skip


KEYWORDS = frozenset(keyword for keywords, _ in READINGS for keyword in keywords) | {"then", "else"}
"""All keywords that say something; all others are annotations."""


def readings(of: Subschema) -> Iterator[tuple[str, Reading]]:
    """Yield the readings of the keywords that stand in a schema, each with the first of them."""
    for keywords, reading in READINGS:
        standing = next((keyword for keyword in keywords if keyword in of), None)
        if standing is not None and not (standing == "const" and of.draft == "4"):
            yield standing, reading


def is_value_of(algebra: "Algebra", term: Any, value: Any) -> bool:  # noqa: PLR0911 - one for each type
    """Tell whether a JSON value is one of a term's."""
    if isinstance(term, Null):
        return value is None
    if isinstance(term, Booleans):
        return isinstance(value, bool) and value in term.values
    if isinstance(term, Numbers):
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and exact(value) in term
        )
    if isinstance(term, Strings):
        return isinstance(value, str) and bool(
            (only := Strings(values=frozenset({value})).intersection(term))
            and only.settled(algebra.budget)
        )
    if isinstance(term, Constants):
        return json_text(value) in term.texts
    if isinstance(term, Arrays):
        return isinstance(value, list | tuple) and _is_array(algebra, term, value)
    return isinstance(value, Mapping) and _is_object(algebra, term, value)


def _is_array(algebra: "Algebra", arrays: Arrays, value: Any) -> bool:
    if len(value) < arrays.low or (arrays.high is not None and len(value) > arrays.high):
        return False
    if arrays.unique and len({json_text(one) for one in value}) < len(value):
        return False
    for contains in arrays.contains:
        found = sum(algebra.satisfies(contains.item, one) for one in value)
        if found < contains.low:
            return False
    return all(algebra.satisfies(arrays.item(n), one) for n, one in enumerate(value))


def _is_object(algebra: "Algebra", objects: Objects, value: Mapping[str, Any]) -> bool:
    if len(value) < objects.low or (objects.high is not None and len(value) > objects.high):
        return False
    return all(name in value for name in objects.required) and all(
        algebra.has_key(objects, name) and algebra.satisfies(algebra.member(objects, name), one)
        for name, one in value.items()
    )
