"""The formats that strings are held to: for each a pattern, from its RFC.

Where validators differ, a format is the narrower reading, so that every validator admits what is
said: no leap seconds, no quoted e-mail names, hosts in ASCII. Other formats are annotations.
"""

import functools
from dataclasses import dataclass

from falsework.grammars.budget import Budget
from falsework.grammars.char_dfa import CharDFA
from falsework.grammars.pattern_dfa import pattern_dfa

_BUILD_SECONDS = 60.0
"""Formats are compiled once a process, not at a request's cost."""


@dataclass(frozen=True)
class StringFormat:
    """`pattern` (whole strings) without what `barred` matches; `source` is where it is defined.

    `certain`: whether every string outside the pattern is outside the format, too.
    """

    source: str
    pattern: str
    barred: str = ""
    certain: bool = False


_YEAR_DATE = (
    r"(?:(?!0000)\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
    r"|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)"
)
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = rf"(?:{_H16}:{_H16}|{_IPV4})"
_IPV6 = "(?:" + "|".join(
    [
        rf"(?:{_H16}:){{6}}{_LS32}",
        rf"::(?:{_H16}:){{5}}{_LS32}",
        rf"(?:{_H16})?::(?:{_H16}:){{4}}{_LS32}",
        rf"(?:(?:{_H16}:){{0,1}}{_H16})?::(?:{_H16}:){{3}}{_LS32}",
        rf"(?:(?:{_H16}:){{0,2}}{_H16})?::(?:{_H16}:){{2}}{_LS32}",
        rf"(?:(?:{_H16}:){{0,3}}{_H16})?::{_H16}:{_LS32}",
        rf"(?:(?:{_H16}:){{0,4}}{_H16})?::{_LS32}",
        rf"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}",
        rf"(?:(?:{_H16}:){{0,6}}{_H16})?::",
    ]
) + ")"  # fmt: skip
_ALNUM = "[A-Za-z0-9]"
_LABEL = rf"{_ALNUM}(?:[A-Za-z0-9-]{{0,61}}{_ALNUM})?"
_SHORT_LABEL = rf"{_ALNUM}(?:[A-Za-z0-9-]{{0,25}}{_ALNUM})?"
# 253 characters at most: three long labels, or nine of up to 27.
_HOST = rf"(?:(?:{_LABEL}\.){{0,2}}{_LABEL}|(?:{_SHORT_LABEL}\.){{0,8}}{_SHORT_LABEL})"
# A-labels would have to be valid punycode: labels with -- in the third place are left out.
_DOUBLE_HYPHEN = r"(?:^|[.@])..--"
_MAILBOX = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.-]{{1,64}}@{_HOST}"
_DOTS = rf"^\.|\.\.|\.@|{_DOUBLE_HYPHEN}"
_HEX = "[0-9A-Fa-f]"


def _uri(more: str) -> dict[str, str]:
    """Return RFC 3986's parts; `more` are the further characters of RFC 3987."""
    pct = rf"%{_HEX}{_HEX}"
    unreserved = rf"A-Za-z0-9._~{more}\-"
    sub = "!$&'()*+,;="
    pchar = rf"(?:[{unreserved}{sub}:@]|{pct})"
    host = rf"(?:\[{_IPV6}\]|(?:[{unreserved}{sub}]|{pct})*)"
    authority = rf"(?:(?:[{unreserved}{sub}:]|{pct})*@)?{host}(?::[0-9]{{0,5}})?"
    tail = rf"(?:\?(?:{pchar}|[/?])*)?(?:#(?:{pchar}|[/?])*)?"
    path = rf"(?://{authority}(?:/{pchar}*)*|/(?:{pchar}+(?:/{pchar}*)*)?|{pchar}+(?:/{pchar}*)*|)"
    no_colon = rf"(?:[{unreserved}{sub}@]|{pct})+"
    relative = (
        rf"(?://{authority}(?:/{pchar}*)*|/(?:{pchar}+(?:/{pchar}*)*)?|{no_colon}(?:/{pchar}*)*|)"
    )
    absolute = rf"[A-Za-z][A-Za-z0-9+.-]*:{path}{tail}"
    return {"absolute": absolute, "reference": rf"(?:{absolute}|{relative}{tail})"}


_UCS = r"\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef"
_URI, _IRI = _uri(""), _uri(_UCS)
_VARIABLE = rf"(?:[A-Za-z0-9_]|%{_HEX}{_HEX})+(?:\.(?:[A-Za-z0-9_]|%{_HEX}{_HEX})+)*"
_VARSPEC = rf"{_VARIABLE}(?::[1-9][0-9]{{0,3}}|\*)?"
_TEMPLATE = (
    rf"(?:[!#$&(-;=?-\[\]_a-z~]|%{_HEX}{_HEX}"
    rf"|\{{[+#./;?&]?{_VARSPEC}(?:,{_VARSPEC})*\}})*"
)
_POINTER = r"(?:/(?:[^~/]|~[01])*)*"
_CLOCK_SPAN = r"T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S)"
_DAY_SPAN = r"(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)"

STRING_FORMATS: dict[str, StringFormat] = {
    "date": StringFormat("RFC 3339, section 5.6", _YEAR_DATE, certain=True),
    "time": StringFormat("RFC 3339, section 5.6", _CLOCK),
    "date-time": StringFormat("RFC 3339, section 5.6", rf"{_YEAR_DATE}[Tt]{_CLOCK}"),
    "duration": StringFormat(
        "RFC 3339, appendix A", rf"P(?:\d+W|{_DAY_SPAN}(?:{_CLOCK_SPAN})?|{_CLOCK_SPAN})"
    ),
    "email": StringFormat(
        "RFC 5321, section 4.1.2", _MAILBOX, _DOTS
    ),
    "idn-email": StringFormat(
        "RFC 6531, ASCII only", _MAILBOX, _DOTS
    ),
    "hostname": StringFormat("RFC 1123, section 2.1", _HOST, _DOUBLE_HYPHEN),
    "idn-hostname": StringFormat("RFC 5890, ASCII only", _HOST, _DOUBLE_HYPHEN),
    "ipv4": StringFormat("RFC 2673, section 3.2", _IPV4, certain=True),
    "ipv6": StringFormat("RFC 4291, section 2.2", _IPV6),
    "uri": StringFormat("RFC 3986", _URI["absolute"]),
    "uri-reference": StringFormat("RFC 3986", _URI["reference"]),
    "iri": StringFormat("RFC 3987", _IRI["absolute"]),
    "iri-reference": StringFormat("RFC 3987", _IRI["reference"]),
    "uri-template": StringFormat("RFC 6570", _TEMPLATE),
    "uuid": StringFormat("RFC 4122", rf"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}",
                         certain=True),
    "json-pointer": StringFormat("RFC 6901", _POINTER, certain=True),
    "relative-json-pointer": StringFormat(
        "draft-handrews-relative-json-pointer-01", rf"(?:0|[1-9]\d{{0,8}})(?:#|{_POINTER})"
    ),
}  # fmt: skip

CHECKED_FORMATS = frozenset({"regex"})
"""Formats that no automaton says; they are checked when the call is complete."""


@functools.cache
def format_dfa(name: str) -> CharDFA:
    """Return the automaton of a format of STRING_FORMATS."""
    one = STRING_FORMATS[name]
    budget = Budget(_BUILD_SECONDS, 100_000_000)
    made = pattern_dfa(f"^(?:{one.pattern})$", budget)
    if one.barred:
        barred = pattern_dfa(one.barred, budget, upper=True)
        made = made.intersection(barred.complement(), budget)
    return made
