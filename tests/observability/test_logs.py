"""The log: a line of JSON each, and nothing in it that nobody should read."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from falsework.server.observability.logging import configure_logging


@pytest.fixture(autouse=True)
def said() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logging("info", stream)
    yield stream
    structlog.reset_defaults()


def test_a_line_is_json_with_the_request_it_belongs_to(said: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        structlog.get_logger().info("request", ms=3)

    line = json.loads(said.getvalue())
    assert (line["event"], line["ms"], line["request_id"]) == ("request", 3, "req_1")


def fail(key: str) -> None:
    raise RuntimeError(len(key))


def test_a_failure_is_told_with_its_place_and_without_the_values_there(said: io.StringIO) -> None:
    try:
        fail("Bearer hunter2")
    except RuntimeError:
        structlog.get_logger().exception("request failed")

    assert "test_logs.py" in said.getvalue()
    assert "hunter2" not in said.getvalue()


def fail_by_quoting(asked: str) -> None:
    try:
        int(asked)
    except ValueError as fault:
        raise ExceptionGroup(asked, [fault]) from fault


@pytest.mark.parametrize("person", [False, True])
def test_an_exceptions_text_may_quote_a_request_and_is_not_logged(
    person: bool, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(said, "isatty", lambda: person)
    configure_logging("info", said)

    try:
        fail_by_quoting("hunter2")
    except ExceptionGroup:
        structlog.get_logger().exception("request failed")

    assert "hunter2" not in said.getvalue()
    assert "ExceptionGroup" in said.getvalue()
    assert "ValueError" in said.getvalue()
    assert "fail_by_quoting" in said.getvalue()


def test_what_is_below_the_level_is_not_said(said: io.StringIO) -> None:
    structlog.get_logger().debug("detail")

    assert said.getvalue() == ""
