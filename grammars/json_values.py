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
    bounded,
    choice,
    compile_regex,
    literal,
    regex,
    separated,
    sequence,
)

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

_INTEGER = r"-?(?:0|[1-9][0-9]{0,18})"
_NUMBER = r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?"


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
        "integer": regex(_INTEGER),
        "number": regex(_NUMBER),
        "boolean": choice([literal(spelling.true), literal(spelling.false)]),
        "null": literal(spelling.null),
    }[kind]


@functools.lru_cache(maxsize=32)
def any_value(spelling: Notation, depth: int = FREE_DEPTH) -> Expression:
    """Say any value, nested to `depth`."""
    ways = [scalar(kind, spelling) for kind in ("string", "number", "boolean", "null")]
    if depth:
        ways += [array(any_value(spelling, depth - 1)), any_object(spelling, depth)]
    return choice(ways)


def array(item: Expression) -> Expression:
    """Say an array of any length."""
    return sequence(literal("["), separated(item, b", ", 0, None), literal("]"))


def any_object(spelling: Notation, depth: int = FREE_DEPTH) -> Expression:
    """Say any object, nested to `depth`."""
    return object_grammar([], any_value(spelling, depth - 1), spelling)


def object_grammar(
    named: Sequence[Property], extra: Expression | None, spelling: Notation, *, bare: bool = False
) -> Expression:
    """Say an object: the named members in order, then any number of others with value `extra`."""
    labels = [_label(member.name, bare=bare) for member in named]
    key = _other_keys([member.name for member in named], spelling) if extra else None
    opening, closing = (b"", b"") if bare else (b"{", b"}")

    def add(net: NFA, start: int) -> int:
        # `first`: nothing said yet; `later`: a member stands before, so a comma must come.
        first: int | None = net.literal(start, opening)
        later: int | None = None
        for member, label in zip(named, labels, strict=True):
            entry, behind = net.add_node(), net.add_node()
            _enter(net, (first, later), entry)
            net.jumps.append((member.value(net, net.literal(entry, label)), behind))
            if member.required:
                first = None
            elif later is not None:
                net.jumps.append((later, behind))
            later = behind
        if extra and key:
            entry, behind = net.add_node(), net.add_node()
            _enter(net, (first, later), entry)
            net.jumps.append((extra(net, net.literal(key(net, entry), b": ")), behind))
            net.jumps.append((net.literal(behind, b", "), entry))
            if later is not None:
                net.jumps.append((later, behind))
            later = behind
        end = net.add_node()
        for alive in (first, later):
            if alive is not None:
                net.jumps.append((net.literal(alive, closing), end))
        return end

    return add


def _enter(net: NFA, ways: tuple[int | None, int | None], entry: int) -> None:
    """Lead to a member from the beginning of its object, and from behind an earlier member."""
    first, later = ways
    if first is not None:
        net.jumps.append((first, entry))
    if later is not None:
        net.jumps.append((net.literal(later, b", "), entry))


def _label(name: str, *, bare: bool) -> bytes:
    if not bare:
        return f"{json.dumps(name, ensure_ascii=False)}: ".encode()
    if not name.isidentifier() or keyword.iskeyword(name):
        msg = f"'{name}' is no name for a keyword argument, which this model's calls are made of"
        raise NotRepresentable(msg)
    return f"{name}=".encode()


def _other_keys(names: Sequence[str], spelling: Notation) -> Expression:
    """Say a key that is none of `names`; without escapes, so that no spelling hides a name."""
    taken = [name.encode() for name in names]

    def add(net: NFA, start: int) -> int:
        # Along the tree of the taken names: whoever leaves it is free, who ends on one is stuck.
        opened, end = net.literal(start, b'"'), net.add_node()
        free = net.add_node()
        net.jumps.append((regex(f"{_PLAIN}*")(net, free), closing := net.add_node()))
        net.edges.append((closing, 0x22, 0x22, end))
        _leave(net, opened, taken, free, closing)
        return end

    return add if names else regex(f'"{spelling.character}*"')


def _leave(net: NFA, node: int, rests: Sequence[bytes], free: int, closing: int) -> None:
    """Add the ways from a node of the tree of taken names; only whole characters leave it."""
    if b"" not in rests:
        net.jumps.append((node, closing))
    texts = [rest.decode() for rest in rests if rest]
    heads = sorted({text[0] for text in texts})
    barred = "".join(rf"\x{{{ord(head):x}}}" for head in heads)
    net.jumps.append((regex(rf'[^"\\\x00-\x1f{barred}]')(net, node), free))
    for head in heads:
        if head in '"\\' or ord(head) < 0x20:  # noqa: PLR2004 - only ever said escaped
            continue
        below = [text[1:].encode() for text in texts if text[0] == head]
        _leave(net, net.literal(node, head.encode()), below, free, closing)
