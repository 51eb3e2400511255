"""How JSON values are spelled, in JSON or as Python literals: one spelling for each value."""

import functools
import json
import keyword
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from falsework.grammars.expressions import (
    NFA,
    Expression,
    Fragment,
    bounded,
    choice,
    compile_regex,
    embedded,
    literal,
    regex,
    separated,
    sequence,
)
from falsework.grammars.key_grammar import keys_without

FREE_DEPTH = 4
"""How deep a value without a schema may nest."""

_HEX = "[0-9a-fA-F]"
_PLAIN = r'[^"\\\x00-\x1f]'
_BASIC = rf"\\u(?:[0-9a-cA-CeEfF]{_HEX}{{3}}|[dD][0-7]{_HEX}{{2}})"
_PAIR = rf"\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}"


class NotRepresentable(ValueError):
    """A value or name that this spelling has no text for."""


@dataclass(frozen=True)
class Notation:
    """The words of a notation; `character` is a regex for one code point inside a string."""

    name: str
    true: str
    false: str
    null: str
    character: str
    bare_arguments: bool
    """Arguments are written `name=value, …` instead of as an object."""


# RFC 8259; lone surrogates are left out, no UTF-8 text can hold them.
JSON = Notation(
    "json", "true", "false", "null", rf'(?:{_PLAIN}|\\["\\/bfnrt]|{_BASIC}|{_PAIR})', False
)
# https://docs.python.org/3/reference/lexical_analysis.html: \/ and pairs mean something else.
PYTHON = Notation("python", "True", "False", "None", rf'(?:{_PLAIN}|\\["\\bfnrt]|{_BASIC})', True)

INTEGER = r"-?(?:0|[1-9][0-9]{0,18})"
NUMBER = r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?"


@dataclass(frozen=True)
class Property:
    """A named member of an object."""

    name: str
    value: Expression
    required: bool


def word(text: str) -> Expression:
    """Exactly this text."""
    return literal(text)


def dumps(value: Any, spelling: Notation = JSON) -> str:
    """Return the one text that stands for this value, blanks behind `,` and `:`."""
    if isinstance(value, dict):
        inside = [f"{dumps(k, spelling)}: {dumps(v, spelling)}" for k, v in value.items()]
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(dumps(one, spelling) for one in value) + "]"
    words = {True: spelling.true, False: spelling.false, None: spelling.null}
    if value is None or isinstance(value, bool):
        return words[value]
    return json.dumps(value, ensure_ascii=False)


def constant(value: Any, spelling: Notation) -> Expression:
    """Say this value and no other."""
    text = dumps(value, spelling)
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"{json.dumps(value)} has a lone surrogate, which no text can hold"
        raise NotRepresentable(msg) from None
    return literal(text)


def string(spelling: Notation, low: int = 0, high: int | None = None) -> Expression:
    """Say a string of `low` to `high` code points."""
    if low == 0 and high is None:
        return regex(f'"{spelling.character}*"')
    return sequence(literal('"'), bounded(compile_regex(spelling.character), low, high, b'"'))


def scalar(kind: str, spelling: Notation) -> Expression:
    """Say any value of a JSON type that has no parts."""
    return {
        "string": string(spelling),
        "integer": regex(INTEGER),
        "number": regex(NUMBER),
        "boolean": choice([literal(spelling.true), literal(spelling.false)]),
        "null": literal(spelling.null),
    }[kind]


@functools.lru_cache(maxsize=32)
def any_value(spelling: Notation, depth: int = FREE_DEPTH) -> Expression:
    """Say any value, nested to `depth`."""
    ways = [scalar(kind, spelling) for kind in ("string", "number", "boolean", "null")]
    if depth:
        ways += [array(any_value(spelling, depth - 1)), any_object(spelling, depth)]
    return _precompiled(choice(ways))


def _precompiled(part: Expression) -> Expression:
    """The part, without counted loops, as a leaf that is compiled when it is first said."""
    kept: list[Fragment] = []

    def add(net: NFA, start: int) -> int:
        if not kept:
            # Where schemas are only planned, numba isn't loaded.
            from falsework.grammars.dfa import compile_dfa, leaf_of  # noqa: PLC0415

            kept.append(leaf_of(compile_dfa(part, counting=False)))
        return net.embed(start, kept[0])

    return add


def array(item: Expression) -> Expression:
    """Say an array of any length."""
    return sequence(literal("["), separated(item, b", ", 0, None), literal("]"))


def any_object(spelling: Notation, depth: int = FREE_DEPTH) -> Expression:
    """Say any object, nested to `depth`."""
    key = regex(f'"{spelling.character}*"')
    return object_grammar([], [(key, any_value(spelling, depth - 1))])


def object_grammar(
    named: Sequence[Property],
    others: Sequence[tuple[Expression, Expression]] = (),
    low: int = 0,
    high: int | None = None,
    *,
    bare: bool = False,
) -> Expression:
    """Say an object of `low` to `high` members: the named ones in order, then any others.

    `others` are what keys, quotes and all, and what values may be.
    """
    labels = [_label(member.name, bare=bare) for member in named]
    opening, closing = (b"", b"") if bare else (b"{", b"}")
    most = max(1, low, high or 0)

    def add(net: NFA, start: int) -> int:
        # `ways[n]`: a node behind n members (the last also stands for more, without a `high`).
        ways: dict[int, int] = {0: net.literal(start, opening)}
        for member, label in zip(named, labels, strict=True):
            further = {} if member.required else dict(ways)
            for count, entry in _entries(net, ways, most, high).items():
                behind = member.value(net, net.literal(entry, label))
                if count in further:
                    joined = net.add_node()
                    net.jumps += [(behind, joined), (further[count], joined)]
                    behind = joined
                further[count] = behind
            ways = further
        if others:
            ways = _add_others(net, ways, others, most, high)
        end = net.add_node()
        for count, node in ways.items():
            if count >= low:
                net.jumps.append((net.literal(node, closing), end))
        return end

    return add


def _entries(net: NFA, ways: dict[int, int], most: int, high: int | None) -> dict[int, int]:
    """Return where a further member begins, for each number of members that there are with it."""
    entries: dict[int, int] = {}
    for count, node in ways.items():
        if high is not None and count >= high:
            continue
        following = min(count + 1, most)
        if following not in entries:
            entries[following] = net.add_node()
        net.jumps.append((net.literal(node, b", " if count else b""), entries[following]))
    return entries


def _add_others(
    net: NFA,
    ways: dict[int, int],
    others: Sequence[tuple[Expression, Expression]],
    most: int,
    high: int | None,
) -> dict[int, int]:
    """Add members of other names, one after the other."""
    nodes = {count: net.add_node() for count in range(min(ways), most + 1)}
    for count, node in ways.items():
        net.jumps.append((node, nodes[count]))
    for count, entry in _entries(net, nodes, most, high).items():
        for key, value in others:
            begun = net.add_node()
            net.jumps.append((entry, begun))
            behind = value(net, net.literal(key(net, begun), b": "))
            net.jumps.append((behind, nodes[count]))
    return nodes


def other_keys(names: Sequence[str], spelling: Notation) -> Expression:
    """Say a key that is none of `names`, however it is spelled."""
    if not names:
        return regex(f'"{spelling.character}*"')
    return embedded(keys_without(tuple(sorted(names))))


def _label(name: str, *, bare: bool) -> bytes:
    if not bare:
        return f"{json.dumps(name, ensure_ascii=False)}: ".encode()
    if not name.isidentifier() or keyword.iskeyword(name):
        msg = f"'{name}' is no name for a keyword argument, which this model's calls are made of"
        raise NotRepresentable(msg)
    return f"{name}=".encode()
