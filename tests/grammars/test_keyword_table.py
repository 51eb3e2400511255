"""Each keyword is served as the reference page says."""

import jsonschema
import pytest

from falsework.grammars.keyword_table import KEYWORD_ROWS, PAGE, Row, page
from falsework.grammars.schema_keywords import KEYWORDS
from falsework.server.cli.schema_report import check_schema

SAID = {name: row for name, row in KEYWORD_ROWS.items() if row.said != "never"}
CHECKED = {name: row for name, row in KEYWORD_ROWS.items() if row.said == "never"}


def test_the_table_has_every_keyword_that_is_read() -> None:
    assert set(KEYWORD_ROWS) == KEYWORDS


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text() == page()


@pytest.mark.parametrize(("name", "row"), SAID.items(), ids=SAID)
def test_a_keyword_that_is_said_admits_what_is_valid_and_nothing_else(name: str, row: Row) -> None:
    report = check_schema(name, row.schema, [row.valid, row.invalid])

    assert (report.how, report.admitted) == ("automaton", (True, False))


@pytest.mark.parametrize(("name", "row"), CHECKED.items(), ids=CHECKED)
def test_a_keyword_that_is_not_said_is_named_as_left_to_a_check(name: str, row: Row) -> None:
    report = check_schema(name, row.schema, [row.valid])

    assert (report.how, report.keyword, report.admitted) == ("checked", name, (True,))


OLDER = {"exclusiveMinimum", "additionalItems", "dependencies", "contentEncoding"}
"""Rows whose example is in the spelling or the meaning of an older draft."""


@pytest.mark.parametrize("name", sorted(SAID.keys() - OLDER))
def test_the_examples_are_those_of_a_validator(name: str) -> None:
    row = SAID[name]
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    validator = jsonschema.Draft202012Validator(row.schema, format_checker=checker)

    assert validator.is_valid(row.valid)
    assert not validator.is_valid(row.invalid)
