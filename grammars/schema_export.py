"""From a schema's normal form to a JSON Schema of the keywords that llguidance enforces.

Nodes become definitions, so that recursion stays; patterns are written with explicit classes, so
that every regex engine reads them alike.
"""

import functools
import itertools
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from falsework.grammars import code_points, ecma_regex
from falsework.grammars.numbers import Numbers
from falsework.grammars.regex_tree import (
    Alternatives,
    Assertion,
    Characters,
    Pattern,
    Repeat,
    Sequence,
    UnsupportedPattern,
)
from falsework.grammars.schema_algebra import Algebra
from falsework.grammars.schema_grammar import COUNTED_LIMIT
from falsework.grammars.schema_terms import (
    ANYTHING,
    EVERYTHING,
    Arrays,
    Booleans,
    Check,
    Node,
    Null,
    Objects,
    Term,
    together,
)
from falsework.grammars.string_formats import STRING_FORMATS
from falsework.grammars.strings import Rule, Strings

Json = dict[str, Any] | bool


class SchemaExport:
    """Writes nodes as JSON Schema; `checks` collects what llguidance doesn't enforce."""

    def __init__(self, algebra: Algebra, *, closed: bool = False) -> None:
        """With `closed`, objects that name members and say nothing of others have no others."""
        self._algebra = algebra
        self._closed = closed
        self._names: dict[Node, str] = {}
        self._definitions: dict[str, Json] = {}
        self.checks: dict[Check, None] = {}

    def document(self, node: Node) -> Json:
        """Return the whole schema of a node."""
        root = self._node(node)
        if not self._definitions or not isinstance(root, dict):
            return root
        return {**root, "$defs": self._definitions}

    def _node(self, node: Node) -> Json:
        if node == ANYTHING:
            return {}
        terms = self._algebra.terms(node)
        if not any(isinstance(term.value, Objects | Arrays) for term in terms):
            return self._union(terms)
        if node not in self._names:
            self._names[node] = name = f"s{len(self._names)}"
            self._definitions[name] = self._union(terms)
        return {"$ref": f"#/$defs/{self._names[node]}"}

    def _union(self, terms: Iterable[Term]) -> Json:
        if terms is EVERYTHING:
            return {}
        parts = []
        for term in terms:
            self._algebra.budget.spend()
            part = self._term(term)
            if part is not None:
                self.checks.update(dict.fromkeys(sorted(term.checks)))
                parts.append(part)
        if len(parts) == 1:
            return parts[0]
        return {"anyOf": parts} if parts else False

    def _term(self, term: Term) -> dict[str, Any] | None:  # noqa: PLR0911 - one for each type
        value = term.value
        if isinstance(value, Objects):
            return self._objects(value)
        if isinstance(value, Arrays):
            return self._arrays(value)
        if isinstance(value, Strings):
            return self._strings(value)
        if isinstance(value, Numbers):
            return self._numbers(value)
        if isinstance(value, Null):
            return {"type": "null"}
        if isinstance(value, Booleans):
            both = len(value.values) > 1
            return {"type": "boolean"} if both else {"enum": sorted(value.values)}
        return {"enum": [self._algebra.constant(text) for text in sorted(value.texts)]}

    def _strings(self, strings: Strings) -> dict[str, Any] | None:
        settled = strings.settled(self._algebra.budget)
        if settled is None:
            return None
        if settled.values is not None:
            return {"enum": sorted(settled.values)}
        made: dict[str, Any] = {"type": "string"}
        made |= {"minLength": settled.low} if settled.low else {}
        made |= {} if settled.high is None else {"maxLength": settled.high}
        patterns = [self._pattern(rule) for rule in sorted(settled.rules, key=repr)]
        written = [{"pattern": one} for one in patterns if one is not None]
        if settled.excluded:
            self.checks["enum", ""] = None
        if len(written) == 1:
            return made | written[0]
        return {**made, "allOf": written} if written else made

    def _pattern(self, rule: Rule) -> str | None:
        text = rule.text
        if rule.keyword == "format":
            text = f"^(?:{STRING_FORMATS[rule.text].pattern})$"
        if rule.holds:
            try:
                return portable(text)
            except UnsupportedPattern:
                pass
        self.checks[rule.keyword, ""] = None
        return None

    def _numbers(self, numbers: Numbers) -> dict[str, Any] | None:
        settled = numbers.simplified()
        if settled is None:
            return None
        if settled.values is not None:
            return {"enum": [_number(one) for one in sorted(settled.values)]}
        if settled.kind == "broken" or settled.excluded:
            self.checks["type" if settled.kind == "broken" else "enum", ""] = None
        made: dict[str, Any] = {"type": "integer" if settled.kind == "whole" else "number"}
        bounds = {
            "exclusiveMinimum" if settled.low_exclusive else "minimum": settled.low,
            "exclusiveMaximum" if settled.high_exclusive else "maximum": settled.high,
            "multipleOf": settled.step,
        }
        return made | {k: _number(bound) for k, bound in bounds.items() if bound is not None}

    def _arrays(self, arrays: Arrays) -> dict[str, Any]:
        if arrays.high is None or arrays.high > 1:
            self.checks.update(dict.fromkeys(sorted(arrays.unique)))
        self.checks.update(dict.fromkeys(one.check for one in arrays.contains))
        made: dict[str, Any] = {"type": "array"}
        prefix = [self._node(arrays.item(index)) for index in range(arrays.prefix_length)]
        made |= {"prefixItems": prefix} if prefix else {}
        rest = arrays.item(len(prefix))
        made |= {} if rest == ANYTHING else {"items": self._node(rest)}
        made |= {"minItems": arrays.low} if arrays.low else {}
        return made | ({} if arrays.high is None else {"maxItems": arrays.high})

    def _objects(self, objects: Objects) -> dict[str, Any] | None:
        algebra = self._algebra
        named = dict.fromkeys(
            itertools.chain(*(layer.names for layer in objects.layers), objects.required)
        )
        properties: dict[str, Json] = {
            name: self._node(algebra.member(objects, name))
            for name in named
            if algebra.has_key(objects, name)
            and not algebra.is_empty(algebra.member(objects, name))
        }
        if any(name not in properties for name in objects.required):
            return None
        left_out: dict[str, Json] = {name: False for name in named if name not in properties}
        made: dict[str, Any] = {"type": "object"}
        made |= {"properties": properties | left_out} if named else {}
        made |= {"required": list(objects.required)} if objects.required else {}
        made |= self._others(objects)
        low = 0 if objects.low <= len(objects.required) else objects.low
        if low > len(objects.required) + 1 or low > COUNTED_LIMIT:
            self.checks[objects.low_check] = None
        made |= {"minProperties": low} if low else {}
        return made | ({} if objects.high is None else {"maxProperties": objects.high})

    def _others(self, objects: Objects) -> dict[str, Any]:
        if objects.keys != ANYTHING:
            self.checks["propertyNames", objects.keys[0][0].pointer] = None
        layers = [layer for layer in objects.layers if layer.patterns]
        rest = together(*(layer.rest for layer in objects.layers))
        names = any(layer.names for layer in objects.layers)
        if not layers:
            others = any(layer.others for layer in objects.layers)
            closed = self._closed and names and not others
            return {"additionalProperties": False if closed else self._node(rest)}
        if len(objects.layers) == 1:
            try:
                patterns = {portable(p): self._node(node) for p, node in layers[0].patterns}
            except UnsupportedPattern:
                pass
            else:
                return {"patternProperties": patterns, "additionalProperties": self._node(rest)}
        self.checks["patternProperties", ""] = None
        return {"additionalProperties": {}}


def _number(number: Fraction) -> int | float:
    return number.numerator if number.denominator == 1 else float(number)


@functools.lru_cache(maxsize=512)
def portable(pattern: str) -> str:
    """Write a pattern anchored and with explicit classes; raise UnsupportedPattern."""
    tree = ecma_regex.parse(pattern)
    parts = tree.parts if isinstance(tree, Alternatives) else (tree,)
    return f"^(?:{'|'.join(_anchored(part) for part in parts)})$"


def _anchored(part: Pattern) -> str:
    """Write an alternative so that it matches whole strings."""
    parts = list(part.parts) if isinstance(part, Sequence) else [part]
    before, behind = _ANY, _ANY
    if parts and parts[0] == Assertion("^"):
        before, parts = "", parts[1:]
    if parts and parts[-1] == Assertion("$"):
        behind, parts = "", parts[:-1]
    if len(parts) == 1 and isinstance(parts[0], Alternatives) and (before or behind):
        return f"{before}{_written(parts[0])}{behind}"
    return before + "".join(map(_written, parts)) + behind


_ANY = r"(?:[^\n]|\n)*"


def _written(part: Pattern) -> str:
    if isinstance(part, Characters):
        if not part.inside:
            msg = "an empty class"
            raise UnsupportedPattern(msg)
        return _class(part.inside)
    if isinstance(part, Sequence):
        return "".join(map(_written, part.parts))
    if isinstance(part, Alternatives):
        return f"(?:{'|'.join(map(_written, part.parts))})"
    if isinstance(part, Repeat):
        count = f"{{{part.low},{'' if part.high is None else part.high}}}"
        return f"(?:{_written(part.part)}){count}"
    msg = "an assertion"
    raise UnsupportedPattern(msg)


def _class(inside: code_points.Ranges) -> str:
    return "[" + "".join(f"{_character(low)}-{_character(high)}" for low, high in inside) + "]"


def _character(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - four digits
