"""The formats that strings are held to: for each a pattern, from its RFC.

Where validators differ, a format is the narrower reading, so that every validator admits what is
said: no leap seconds, no quoted e-mail names, hosts in ASCII. Other formats are annotations.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class StringFormat:
    """`pattern` is of whole strings; `source` is where the format is defined.

    `loose` is a pattern that all strings match which any validator takes for the format.
    """

    source: str
    pattern: str
    loose: str = ""
    certain: bool = False
    """Whether all validators read the format as `pattern`."""


_YEAR_DATE = (
    r"(?:(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
    r"|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)"
)
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = rf"(?:{_H16}:{_H16}|{_IPV4})"
_IPV6 = (
    "(?:"
    + "|".join(
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
    )
    + ")"
)
_LETTER, _INNER = "[A-Za-z0-9]", "[A-Za-z0-9-]"


def _label(inner: int) -> str:
    """Return a label; none with -- in the third place, A-labels would have to be punycode."""
    start = rf"{_INNER}(?:{_LETTER}{_INNER}|-{_LETTER})"
    return (
        rf"{_LETTER}(?:{_INNER}?{_LETTER}|{_INNER}(?:{_LETTER}{_LETTER}|-{_LETTER})"
        rf"|{start}{_INNER}{{0,{inner}}}{_LETTER})?"
    )


# 63 characters a label and 253 at most: three long labels, or nine of up to 27.
_HOST = rf"(?:(?:{_label(58)}\.){{0,2}}{_label(58)}|(?:{_label(22)}\.){{0,8}}{_label(22)})"
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
# 64 characters before the @, whatever the number of dots.
_MAILBOX = (
    rf"(?:{_ATEXT}{{1,64}}|{_ATEXT}{{1,31}}\.{_ATEXT}{{1,32}}"
    rf"|(?:{_ATEXT}{{1,20}}\.){{2}}{_ATEXT}{{1,20}}|(?:{_ATEXT}{{1,12}}\.){{3,4}}{_ATEXT}{{1,12}})"
    rf"@{_HOST}"
)
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
    "time": StringFormat("RFC 3339, section 5.6", _CLOCK, loose=r"^\d\d:\d\d:"),
    "date-time": StringFormat(
        "RFC 3339, section 5.6", rf"{_YEAR_DATE}[Tt]{_CLOCK}", loose=r"^\d{4}-\d\d-\d\d[Tt ]"
    ),
    "duration": StringFormat(
        "RFC 3339, appendix A",
        rf"P(?:\d+W|{_DAY_SPAN}(?:{_CLOCK_SPAN})?|{_CLOCK_SPAN})",
        loose=r"^[Pp]",
    ),
    "email": StringFormat("RFC 5321, section 4.1.2", _MAILBOX, loose=r"@"),
    "idn-email": StringFormat("RFC 6531, ASCII only", _MAILBOX, loose=r"@"),
    "hostname": StringFormat("RFC 1123, section 2.1", _HOST, loose=r"^[^\s/:@]*$"),
    "idn-hostname": StringFormat("RFC 5890, ASCII only", _HOST, loose=r"^[^\s/:@]*$"),
    "ipv4": StringFormat("RFC 2673, section 3.2", _IPV4, certain=True),
    "ipv6": StringFormat("RFC 4291, section 2.2", _IPV6, loose=r":"),
    "uri": StringFormat("RFC 3986", _URI["absolute"], loose=r":"),
    "uri-reference": StringFormat("RFC 3986", _URI["reference"]),
    "iri": StringFormat("RFC 3987", _IRI["absolute"], loose=r":"),
    "iri-reference": StringFormat("RFC 3987", _IRI["reference"]),
    "uri-template": StringFormat("RFC 6570", _TEMPLATE),
    "uuid": StringFormat(
        "RFC 4122", rf"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}", certain=True
    ),
    "json-pointer": StringFormat("RFC 6901", _POINTER, certain=True),
    "relative-json-pointer": StringFormat(
        "draft-handrews-relative-json-pointer-01", rf"(?:0|[1-9]\d{{0,8}})(?:#|{_POINTER})"
    ),
}

CHECKED_FORMATS = frozenset({"regex"})
"""Formats that no automaton says; they are checked when the call is complete."""
