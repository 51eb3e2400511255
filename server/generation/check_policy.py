"""What becomes of schema keywords that decoding can't enforce."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from falsework.grammars import Check
from falsework.grammars.reply_format import UnsupportedFormat


@dataclass(frozen=True)
class CheckPolicy:
    """What becomes of keywords that decoding can't enforce.

    "check": calls and answers are judged when they are complete, and decoded again up to
    `attempts` times; "refuse": the schema is refused.
    """

    unenforceable: Literal["check", "refuse"] = "check"
    attempts: int = 2


DEFAULT_CHECKS = CheckPolicy()

HINTS: Mapping[str, str] = {
    "contains": "name the items with 'prefixItems' or 'items'",
    "dependentSchemas": "write 'anyOf' with a branch for each case",
    "else": "write 'anyOf' with a branch for each case",
    "if": "write 'anyOf' with a branch for each case",
    "not": "name what is allowed, with 'enum' or 'anyOf'",
    "oneOf": "write 'anyOf'",
    "then": "write 'anyOf' with a branch for each case",
    "unevaluatedItems": "write 'items': false beside 'prefixItems'",
    "unevaluatedProperties": "write 'additionalProperties': false beside 'properties'",
    "uniqueItems": "ask for an object with a boolean for each item",
}
"""What to write instead of a keyword that can only be checked."""


def refuse_checks(checks: Sequence[Check], where: str, tool: str | None) -> None:
    """Raise UnsupportedFormat for the first of these keywords, with what to write instead."""
    for keyword, pointer in checks:
        hint = HINTS.get(keyword, "leave it out, or leave out 'strict'")
        msg = f"'{keyword}' can't be enforced while decoding, only checked afterwards: {hint}"
        raise UnsupportedFormat(msg, f"{where}#{pointer}", tool=tool)
