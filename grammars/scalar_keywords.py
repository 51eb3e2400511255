"""What the keywords of types, listed values, numbers and strings ask for, as terms."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from falsework.grammars import ecma_regex, regex_tree
from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import TooManyCharacterStates
from falsework.grammars.number_grammar import NumberTooComplex, check_step
from falsework.grammars.numbers import Numbers, exact
from falsework.grammars.pattern_dfa import pattern_dfa
from falsework.grammars.regex_tree import InvalidPattern, UnsupportedPattern
from falsework.grammars.schema_documents import Subschema
from falsework.grammars.schema_errors import escape_pointer
from falsework.grammars.schema_terms import (
    Booleans,
    Check,
    Constants,
    Null,
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


def type_terms(_: "Algebra", of: Subschema) -> Terms:
    """Return what type asks for."""
    said = of.get("type")
    types = [said] if isinstance(said, str) else list(said)
    if "number" in types:
        types = [one for one in types if one != "integer"]
    return tuple(term for one in types for term in of_type(one))


def enum_terms(algebra: "Algebra", of: Subschema) -> Terms:
    """Return what enum asks for."""
    return _remembered(algebra, of.get("enum"))


def const_terms(algebra: "Algebra", of: Subschema) -> Terms:
    """Return what const asks for."""
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


def number_terms(_: "Algebra", of: Subschema) -> Terms:
    """Return what the bounds and multipleOf ask for."""
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


def string_terms(algebra: "Algebra", of: Subschema) -> Terms:
    """Return what lengths, pattern, format and content ask for."""
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
    if of.draft == ASSERTED_CONTENT and of.get("contentEncoding") == "base64":
        rules.append(Rule("pattern", BASE64))
    if of.draft == ASSERTED_CONTENT and of.get("contentMediaType") == "application/json":
        checks.append(check(of, "contentMediaType"))
    low, high = size(of, "minLength") or 0, size(of, "maxLength")
    strings = Strings(0, None, frozenset(map(counted, rules))).intersection(Strings(low, high))
    for rule in rules:
        strings = strings and strings.intersection(counted_lengths(rule))
    return among("string", [Term(strings).checked(checks)] if strings else [])


ASSERTED_CONTENT = "7"
"""The draft in which contentEncoding and contentMediaType may be more than annotations."""
BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

_COUNTED = re.compile(r"(?P<before>\^.+)\{(?P<low>\d+)(?P<comma>,?)(?P<high>\d*)\}\$", re.DOTALL)


def _repeated_class(rule: Rule) -> re.Match[str] | None:
    """Return the match where a pattern is one class and a count, as in ^[a-z]{1,64}$."""
    found = _COUNTED.fullmatch(rule.text) if rule.keyword == "pattern" else None
    tree = ecma_regex.parse(rule.text) if found else None
    single = (
        isinstance(tree, regex_tree.Sequence)
        and len(tree.parts) == 3  # noqa: PLR2004 - ^, the class, $
        and isinstance(tree.parts[1], regex_tree.Repeat)
        and isinstance(tree.parts[1].part, regex_tree.Characters)
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
