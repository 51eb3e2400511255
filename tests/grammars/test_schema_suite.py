"""The JSON Schema Test Suite: nothing invalid is let out, and what can't be said is listed.

`python tests/grammars/test_schema_suite.py` (with `tests` on the path) writes the list anew.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from support.published_templates import Unreachable
from support.schema_suite import DRAFTS, Case, cases

from falsework.server.cli.schema_report import SchemaReport, check_schema
from falsework.server.generation.trial_worker import VALIDATORS

LISTED = Path(__file__).with_name("schema_suite_restrictions.json")
"""By draft: the cases that are refused, and the valid instances that can't be said."""


def let_out(case: Case, draft: str, report: SchemaReport) -> list[bool]:
    """Tell for each instance whether a reply may be it."""
    said = list(report.admitted or [False] * len(case.tests))
    if report.how not in {"checked", "llguidance"}:
        return said
    # Both are judged when they are complete.
    judge = VALIDATORS[draft.removeprefix("draft")](
        case.schema, validate_formats=True, registry=jsonschema_rs.Registry([])
    )
    return [may and judge.is_valid(one) for may, (_, one, _) in zip(said, case.tests, strict=True)]


def in_our_spelling(instance: Any) -> Any:
    """Return the instance as our spelling has it: a whole number has no point."""
    if isinstance(instance, float) and instance.is_integer():
        return int(instance)
    return instance


def outcomes(draft: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield (name, whether it is valid, whether a reply may be it) of each test of a draft.

    A case that is refused is one line, valid and not let out.
    """
    for case in cases(draft):
        spelled = [
            (what, in_our_spelling(one), is_valid)
            for what, one, is_valid in case.tests
            # As draft 4 reads it, 1.0 is another value than the 1 that is said.
            if not (draft == "draft4" and in_our_spelling(one) is not one)
        ]
        report = check_schema(case.name, case.schema, [one for _, one, _ in spelled])
        if report.how == "refused" and any(is_valid for *_, is_valid in spelled):
            yield case.name, True, False
            continue
        may_be = let_out(case._replace(tests=spelled), draft, report)
        for (what, _, is_valid), may in zip(spelled, may_be, strict=True):
            yield f"{case.name}: {what}", is_valid, may


def of_draft(draft: str) -> list[tuple[str, bool, bool]]:
    try:
        return list(outcomes(draft))
    except Unreachable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("draft", DRAFTS)
def test_nothing_that_the_suite_calls_invalid_is_let_out_and_what_cannot_be_said_is_listed(
    draft: str,
) -> None:
    told = of_draft(draft)

    assert len(told) > 500
    assert [name for name, is_valid, may in told if may and not is_valid] == []
    assert [name for name, is_valid, may in told if is_valid and not may] == json.loads(
        LISTED.read_text()
    )[draft]


def main() -> None:
    """Write the list."""
    listed = {
        draft: [name for name, is_valid, may in outcomes(draft) if is_valid and not may]
        for draft in DRAFTS
    }
    LISTED.write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
